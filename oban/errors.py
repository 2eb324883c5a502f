"""All errors that Oban raises on purpose, as one tree below `ObanError`."""

from typing import Self

from oban.display import shown


class ObanError(Exception):
    """Base class of every error that Oban raises itself.

    Other errors, such as SQLAlchemy's, are passed on. Catch this class where a request must go on although a
    call has failed, and let other errors through.
    """


class ConfigError(ObanError, ValueError):
    """An option, a URL, a prefix or the definition of a worker is wrong.

    It is raised where the object is made: by `Oban`, by `SyncOban`, by a class statement, or by a command.
    The message names the option and what it can be. Correct the code or the configuration; a retry does not
    help. Some calls about queues and periodic entries raise it for a wrong argument.
    """


class UnsupportedDatabase(ConfigError):
    """Oban does not support the database or the driver of a URL or an engine.

    Use PostgreSQL or SQLite, with a driver that the message names.
    """


class SchemaMissing(ObanError, RuntimeError):
    """The database does not have the Oban tables yet.

    Run `oban install`, or your Alembic migration. With a prefix, the tables are looked for in that schema:
    pass the same one to both.
    """


class SchemaOutdated(SchemaMissing):
    """The tables are of an older version of Oban.

    Run `oban install`, or add a revision to your Alembic migrations, before you deploy the new version.
    """


class SchemaMismatch(ObanError, RuntimeError):
    """There are tables of these names that Oban cannot upgrade or adopt as they are.

    They were created by a newer version or by another program, or changed by hand. The message names each
    difference. Update the package, correct the tables, or choose another prefix.
    """


class DatabaseUnavailable(ObanError, ConnectionError):
    """The database cannot be reached, or refuses the connection, so nothing of the call was sent.

    `__cause__` is the driver's error. The call can be repeated as it is. A node that has started repeats its
    own statements until the database answers. It is also a `ConnectionError`.
    """


class WouldDeadlock(ObanError, RuntimeError):
    """A call would wait for a lock of its own job, or for the event loop that it blocks.

    On SQLite, a job whose session has written waits for itself if it enqueues without `session`: pass the
    session, or enqueue first. `enqueue_sync` on the event loop raises it, too: use `await enqueue(…)` there.
    """


class InvalidJob(ObanError, ValueError):
    """A field of a job has a value that it cannot hold, or a job has no such field.

    It is raised when the job is made, enqueued, updated or retried, before anything is stored. In a bulk
    `insert(Job)` or another statement of your own, SQLAlchemy wraps it in a `StatementError`.

    Attributes:
        field: The name of the field.
        problem: What is wrong with the value, and what to store instead.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem


class EncodingError(InvalidJob):
    """A value of `args`, `meta` or a recorded result cannot be stored as JSON.

    `field` is the path to it, such as `args["a"][0]`. Store what the message names, such as `str(value)` for
    a UUID, or declare the type of the args, which converts them.
    """

    def within(self, path: str) -> Self:
        """The same error, seen from outside: its path begins with `path`."""
        return type(self)(path + self.field, self.problem)


class DecryptionFailed(InvalidJob):
    """The args of a job are encrypted, and its worker does not have the key.

    An attempt fails with it and is retried. Add the key to the worker's option `encrypt` until no job needs
    it.
    """


class InvalidArgument(ObanError, TypeError):
    """A call got an argument that it does not take, such as an unknown state in `filters.state`.

    The message names what it takes. Correct the call. It is also a `TypeError`.
    """


class InvalidTarget(InvalidArgument):
    """An argument is not a job, an id, a `select(Job)` or a session that the call can use.

    A `select(Job)` without a condition needs `everything=True`. `Oban` takes an `AsyncSession` or an
    `AsyncConnection` as `session`, and `SyncOban` a `Session` or a `Connection`; a call that writes refuses
    one in AUTOCOMMIT mode.
    """


class NotEnqueued(ObanError, ValueError):
    """A `Job` was passed that has no id, because it was never enqueued.

    Enqueue it first, or flush the session that it was added to. No job of the call was changed.
    """


class JobNotFound(ObanError, LookupError):
    """A job to update or to wait for does not exist; it can have been pruned or deleted.

    No job of the call was changed. `cancel_job`, `retry_job` and `delete_job` ignore unknown ids instead.

    Attributes:
        ids: All ids that are missing.
    """

    def __init__(self, ids: list[int]) -> None:
        more = f" and {len(ids) - 10:,} more" if len(ids) > 10 else ""
        super().__init__("no job has the id " + ", ".join(map(shown, ids[:10])) + more)
        self.ids = ids


class UniqueConflict(ObanError):
    """A job cannot be stored, because it is unique and another one is in the way.

    An update raises it, and so does a `session.add` or another INSERT of your own. `enqueue` does not: it
    returns the job in the way. Nothing was stored. Use that job, or cancel it first.

    Attributes:
        job_id: The id of the job in the way. None for an earlier job of the same flush or statement, which
            has no id yet.
    """

    def __init__(self, job_id: int | None) -> None:
        other = "an earlier job of the same statement" if job_id is None else f"job {shown(job_id)}"
        super().__init__(f"the job is unique, and {other} is in the way")
        self.job_id = job_id

    @property
    def id(self) -> int | None:
        """The same as `job_id`."""
        return self.job_id


class PeriodicNotFound(ObanError, LookupError):
    """There is no periodic entry of this name in this instance.

    `list_periodic` has all of them. Entries of the code exist once a node has started with it.

    Attributes:
        name: The name that was looked for.
    """

    def __init__(self, name: object, hint: str = "") -> None:
        super().__init__(f"no periodic entry is named {shown(name)}{hint}")
        self.name = name


class PeriodicInCode(ObanError, ValueError):
    """A call cannot add or delete a periodic entry, because the code of the nodes declares it.

    Choose another name, or use `update_periodic` or `pause_periodic`, which change entries of the code, too.
    """


class WrongLoop(ObanError, RuntimeError):
    """An `Oban` that runs jobs, or an engine with a pool, is used on another event loop than its own.

    Each event loop needs a client and an engine of its own. In threads, use `SyncOban` or `enqueue_sync`. An
    engine with `poolclass=NullPool` can be used on any loop.
    """


class UnknownWorker(ObanError, LookupError):
    """A job names a worker that is not registered in this process.

    The attempt fails and is retried. Import the module that defines the worker before the node starts; after
    a worker was renamed, give it its earlier name in the option `aliases`.
    """


class InstanceNotFound(ObanError, LookupError):
    """There is no `Oban`, or `SyncOban`, of this name in this process.

    Create the client before a worker's `enqueue` is called and keep a reference to it, or set the option
    `oban` of the worker to the client's name.
    """
