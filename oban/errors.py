"""All errors that Oban raises on purpose, as one tree below `ObanError`."""

from typing import Self

from oban.display import shown


class ObanError(Exception):
    """Base class of every error that Oban raises itself."""


class ConfigError(ObanError, ValueError):
    """An option, a URL or a prefix cannot be used."""


class UnsupportedDatabase(ConfigError):
    """Oban does not support the database, or the driver, of a URL or an engine."""


class SchemaMissing(ObanError, RuntimeError):
    """The database does not have the Oban tables yet: run `oban install`."""


class SchemaOutdated(SchemaMissing):
    """The tables are of an older version of Oban: run `oban install`."""


class SchemaMismatch(ObanError, RuntimeError):
    """There are tables of these names that Oban cannot upgrade or adopt as they are."""


class DatabaseUnavailable(ObanError, ConnectionError):
    """The database cannot be reached, or refuses the connection."""


class WouldDeadlock(ObanError, RuntimeError):
    """A job would wait for a lock of its own session: SQLite has one writer at a time."""


class InvalidJob(ObanError, ValueError):
    """A field of a job has a value that it cannot hold. `field` is its name, and `problem` the reason."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem


class EncodingError(InvalidJob):
    """A value cannot be stored as JSON. `field` is the path to it, such as `args["a"][0]`."""

    def within(self, path: str) -> Self:
        """The same error, seen from outside: its path begins with `path`."""
        return type(self)(path + self.field, self.problem)


class DecryptionFailed(InvalidJob):
    """The args of a job are encrypted, and its worker does not have the key."""


class InvalidArgument(ObanError, TypeError):
    """A call got an argument that it does not take, such as an unknown state in `filters.state`."""


class InvalidTarget(InvalidArgument):
    """An argument is not a job, an id, a `select(Job)` or a session that the call can use."""


class NotEnqueued(ObanError, ValueError):
    """A `Job` has no id, because it was never enqueued."""


class JobNotFound(ObanError, LookupError):
    """There is no job with this id. `ids` has all ids that are missing."""

    def __init__(self, ids: list[int]) -> None:
        more = f" and {len(ids) - 10:,} more" if len(ids) > 10 else ""
        super().__init__("no job has the id " + ", ".join(map(shown, ids[:10])) + more)
        self.ids = ids


class UniqueConflict(ObanError):
    """A job cannot be stored, because it is unique and another one is in the way.

    `job_id`, or `id`, is the id of that one. It is None for an earlier job of the same flush or statement,
    which has no id yet.
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
    """There is no periodic entry of this name. `name` is the name."""

    def __init__(self, name: object, hint: str = "") -> None:
        super().__init__(f"no periodic entry is named {shown(name)}{hint}")
        self.name = name


class PeriodicInCode(ObanError, ValueError):
    """A call cannot add or delete a periodic entry, because the code of the nodes declares it."""


class WrongLoop(ObanError, RuntimeError):
    """An `Oban` that runs jobs, or an engine with a pool, was used on another event loop than its own."""


class UnknownWorker(ObanError, LookupError):
    """A job names a worker that is not registered in this process."""


class InstanceNotFound(ObanError, LookupError):
    """There is no `Oban` of this name in this process."""
