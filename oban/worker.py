"""Workers: the classes that process jobs.

A worker's name in the database is `module.QualifiedName`, unless the option `name` sets another. Only
registered workers run: nothing is ever imported because a row names it.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar, Generic, Unpack, cast

from typing_extensions import TypeVar

from oban import backoff, instances, job_creation, worker_definition
from oban.arguments import Arguments
from oban.cron_options import CronOptions
from oban.database.joined import AsyncCaller, SyncCaller
from oban.encryption import Encryption
from oban.error_rules import Rules
from oban.fields import Overrides, WorkerOptions
from oban.middleware import Layers
from oban.models import Job
from oban.resources import ResourceParameter
from oban.signatures import PassesError
from oban.unique import Replacement, Unique

#: The type of a worker's args.
A = TypeVar("A", default=Mapping[str, Any])


class Worker(Generic[A]):
    """Base class of workers. A subclass defines `process`, and its options in the class statement.

    `class Report(Worker[ReportArgs], queue="media", timeout=60)` also declares the type of its jobs' args: a
    dataclass, a TypedDict or a pydantic model, which needs `oban-sqlalchemy[pydantic]`. `new` and `enqueue`
    then take such an object, and `process` gets one as its parameter `args`. Without a declared type, args
    are a dict of JSON values.

    Args:
        queue: The queue of the worker's jobs (default "default").
        priority: 0, which runs first, to 9, which runs last (default 0).
        max_attempts: How many attempts a job has, 1 to 32,767 (default: the option `max_attempts` of the
            `Oban` that enqueues it, or 20).
        tags: Up to 100 strings of up to 255 characters (default: none).
        meta: A dict of JSON values (default: empty).
        unique: Whether a job is not inserted if there is a duplicate of it: True, a dict of the arguments of
            `Unique`, or a `Unique` (default: False). `enqueue` then returns the duplicate, with `conflict`
            true.
        replace: The fields of a duplicate that the new job replaces: a list, or a dict of lists by the state
            of the duplicate, such as `{"scheduled": ["scheduled_at"]}` (default: none).
        name: The worker's name in the database (default: `module.QualifiedName`).
        oban: The name of the instance that `enqueue` uses (default "Oban").
        aliases: An earlier name of the worker, or a list of them: it also runs the jobs that were enqueued
            under these names (default: none). Subclasses do not inherit them.
        cron: When periodic jobs of the worker are inserted: a cron expression such as `"0 3 * * *"`,
            `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly` or `@reboot` (default: never). Subclasses do
            not inherit it, nor the next five options, which need it.
        timezone: The name of the time zone that `cron` is about (default "UTC").
        args: The args of the periodic jobs, as for `new` (default: empty).
        cron_name: The name of the periodic entry (default: the worker's name).
        catch_up: Which of the times that passed while no node ran are made up for: "latest", "skip", "all" or
            a number of the newest ones (default "latest").
        window: How long ago such a time can be, in seconds or as a timedelta (default one hour).
        timeout: Seconds, or a timedelta, that an attempt can take; None for no limit (default: the option
            `timeout` of the `Oban` that runs the job). An async attempt is interrupted where it awaits, and a
            child process is killed. An attempt in a thread cannot be interrupted: `job.cancelled()` becomes
            true, and the attempt fails when it ends.
        retry_on: Exceptions after which the job is retried: a class, a tuple of classes, or a dict of classes
            with delays (seconds or timedeltas) instead of `backoff`.
        discard_on: Exceptions, a class or a tuple of them, that make the job `discarded` at once.
        cancel_on: Exceptions, a class or a tuple of them, that make the job `cancelled`.
        snooze_on: Exceptions that snooze the job: a dict of classes with delays. The attempt does not count.
            The most specific class of an exception decides; without any, the job is retried. A subclass
            inherits these four options and can name a class again, to decide otherwise.
        executor: Where a plain `def process` runs: "thread" or "process", a child process (default "thread").
        redact: Names of fields of `args` and `meta`, at any depth, that only the worker may see: a name or a
            list of names (default: none). Subclasses add to those of their base.
        encrypt: The key with which the args are encrypted: a Fernet key, a list of them, of which the first
            encrypts and all decrypt, or a function that returns either and is called when it is first needed
            (default: args are stored as they are). It needs `oban-sqlalchemy[encryption]`.
        middleware: Functions that run around each attempt, inside of those of the `Oban` that runs it, the
            outermost first (default: none).

    Raises:
        ConfigError: An option does not exist or has a wrong value, or the methods do not fit the options.
    """

    worker_name: ClassVar[str] = ""
    #: The option `aliases`.
    _aliases: ClassVar[tuple[str, ...]] = ()
    #: The options about periodic jobs.
    _cron: ClassVar[CronOptions | None] = None
    #: Whether `process` is a coroutine function, which runs on the event loop.
    is_async: ClassVar[bool] = False
    #: Whether `process` runs in a child process.
    in_process: ClassVar[bool] = False
    #: The parameters that `process` has in addition to the job, and those of them that get resources.
    takes: ClassVar[frozenset[str]] = frozenset()
    resource_parameters: ClassVar[tuple[ResourceParameter, ...]] = ()
    #: The option `middleware`.
    own_middleware: ClassVar[Layers] = ()
    #: The option `redact`.
    _redacted: ClassVar[frozenset[str]] = frozenset()
    #: The option `encrypt`.
    _encryption: ClassVar[Encryption | None] = None
    #: Whether either of these two is set.
    _has_secrets: ClassVar[bool] = False
    #: What `retry_on`, `discard_on`, `cancel_on` and `snooze_on` say about exceptions.
    error_rules: ClassVar[Rules] = {}
    #: The options `unique` and `replace`.
    _unique: ClassVar[Unique | None] = None
    _replace: ClassVar[Replacement] = {}
    #: Why the class is only a base of other workers, if it is.
    _why_base: ClassVar[str | None] = "has no method process"
    #: The fields of a new job, and those of them that each job needs a copy of.
    _defaults: ClassVar[Mapping[str, Any]] = {}
    _mutable: ClassVar[Mapping[str, Any]] = {}
    #: A new job as a dict.
    _template: ClassVar[dict[str, Any]] = {}
    #: Whether the name begins with `__main__`, and nothing has warned about it yet.
    _is_in_script: ClassVar[bool] = False
    _oban: ClassVar[str] = "Oban"
    _timeout: ClassVar[float | None] = None
    #: Whether the worker has an option `timeout`, and whether that of the `Oban` applies.
    _has_timeout: ClassVar[bool] = False
    _uses_default_timeout: ClassVar[bool] = True
    #: How `backoff` gets the exception.
    _passes_error: ClassVar[PassesError] = None
    #: The type in `Worker[…]`, and the object that dumps and parses args of that type.
    _declared: ClassVar[Any] = None
    _arguments: ClassVar[Arguments | None] = None

    def __init_subclass__(cls, **options: Unpack[WorkerOptions]) -> None:
        super().__init_subclass__()
        worker_definition.define(cls, Worker, options)

    def process(self, job: Job, *args: Any, **kwargs: Any) -> Any:
        """Process one job. Define it as `async def`, or as `def` to run it in a thread.

        Other parameters than those below get what the option `lifespan` of the node's `Oban` yields.

        Args:
            job: The job, as it was when this attempt started; `job.cancelled()` is always current.
            args: The args as the declared type, or `job.args` without one. Optional, found by its name.
            session: An `AsyncSession`, or a `Session` for a plain `def`. What is written with it is
                committed together with the job's completion, or rolled back. Optional, found by its name;
                not available with `executor="process"`.

        Returns:
            `Cancel`, `Discard`, `Snooze` or `Record`; anything else completes the job.

        Raises:
            Cancel: Or `Discard` or `Snooze`: they can be raised as well. What was written with the session is
                then rolled back.
            Exception: Any other exception makes the job `retryable`, after `backoff` seconds, or `discarded`
                if no attempt is left, unless one of the options above names its class.
        """
        raise NotImplementedError(f"{type(self).__qualname__} has no process method")

    def backoff(self, job: Job, *args: Any, **kwargs: Any) -> float | timedelta | None:
        """Decide how long a job that has failed waits for its next attempt.

        It is called after attempt number `job.attempt` has failed. After None, the job is `discarded`.

        Override it to change the default: 15 + 2^attempt seconds, with jitter. It can be defined as
        `def backoff(self, job)`, or as `def backoff(self, job, error)` to get the exception as well: a
        `TimeoutError` after a timeout. That of a child process is made again; where it cannot be, an
        exception with the same name and message takes its place.

        Args:
            job: The job.

        Returns:
            Seconds or a timedelta; None for no more attempts.

        Example:
            `def backoff(self, job, error): return 60 if isinstance(error, TimeoutError) else 5`
        """
        return backoff.default(job.attempt, job.max_attempts)

    def timeout(self, job: Job) -> float | timedelta | None:
        """Decide how long an attempt of a job can take.

        Override it to decide for each job; the option `timeout` of `Oban` does not apply then. By default it
        returns the option `timeout` of the worker. If it returns anything else, that is logged, and the job
        runs without a limit.

        Args:
            job: The job, before its attempt starts.

        Returns:
            Seconds or a timedelta; None for no limit.

        Example:
            `def timeout(self, job): return job.args["pages"] * 2`
        """
        return self._timeout

    @classmethod
    def new(cls, /, args: A | None = None, **overrides: Unpack[Overrides]) -> Job:
        """Create a job for this worker, without enqueueing it.

        Args:
            args: An object of the declared type or a dict that fits it, else a dict (default: empty).
            overrides: Fields of the job that differ from the worker's options: `queue`, `priority`,
                `max_attempts`, `tags`, `meta`, `unique` (False turns the worker's off), `replace`, and
                `scheduled_at` (a datetime with a time zone) or `schedule_in` (seconds or a timedelta;
                `scheduled_in` is the same).

        Returns:
            A new job, for `enqueue` or `session.add`.

        Raises:
            InvalidJob: The args do not fit the declared type, or a field does not exist or has a wrong value.
            ConfigError: The class is abstract or has no `process`.

        Example:
            `Report.new({"customer": 7}, schedule_in=60)`
        """
        return job_creation.create(cls, "new", args, overrides)

    @classmethod
    def _arg_names(cls) -> frozenset[str] | None:
        """The keys that the stored args can have; None if that is not known."""
        return None if cls._arguments is None else cls._arguments.names()

    @classmethod
    def args_of(cls, job: Job) -> A:
        """Return the args of a job as the declared type, or `job.args` without one; decrypted with `encrypt`.

        Args:
            job: A job of this worker, such as one that was read.

        Returns:
            The args.

        Raises:
            InvalidJob: The stored args do not fit the declared type.
            DecryptionFailed: They are encrypted with a key that `encrypt` does not have.

        Example:
            `Report.args_of(job)`
        """
        args = job.args if cls._encryption is None else cls._encryption.plain(job.args)
        if cls._arguments is None:
            return cast(A, args)
        return cast(A, cls._arguments.parse(args, cls.worker_name))

    @classmethod
    async def enqueue(
        cls, /, args: A | None = None, session: AsyncCaller | None = None, **overrides: Unpack[Overrides]
    ) -> Job:
        """Create a job for this worker, and enqueue it with the `Oban` of the option `oban`.

        Args:
            args: The args, as for `new`.
            session: An `AsyncSession` or `AsyncConnection`, to insert the job in its transaction.
            overrides: Fields of the job, as for `new`.

        Returns:
            The job; if it is unique and there is a duplicate, that one, with `conflict` true.

        Raises:
            InvalidJob: The args or a field cannot be stored.
            InstanceNotFound: There is no such `Oban` in this process.

        Example:
            `await Report.enqueue({"customer": 7}, session=session)`
        """
        job = job_creation.create(cls, "enqueue", args, overrides)
        enqueued: Job = await instances.async_clients.get(cls._oban).enqueue(job, session=session)
        return enqueued

    @classmethod
    def enqueue_sync(
        cls, /, args: A | None = None, session: SyncCaller | None = None, **overrides: Unpack[Overrides]
    ) -> Job:
        """Do the same as `enqueue` with a `SyncOban`, and a sync session or connection.

        Without a `SyncOban` of that name, the `Oban` that runs jobs in this process enqueues the job, so that
        a plain `process` can use this. It waits for the event loop, so it cannot be called there.

        Args:
            args: The args, as for `new`.
            session: A `Session` or `Connection`, to insert the job in its transaction.
            overrides: Fields of the job, as for `new`.

        Returns:
            The job, as for `enqueue`.

        Raises:
            InvalidJob: The args or a field cannot be stored.
            InstanceNotFound: There is neither in this process, or the `Oban` has stopped.
            WouldDeadlock: It was called on the event loop: use `await enqueue(…)` there.

        Example:
            `Report.enqueue_sync({"customer": 7})`
        """
        job = job_creation.create(cls, "enqueue_sync", args, overrides)
        enqueued: Job = instances.for_sync_calls(cls._oban)._enqueue_sync(job, session)
        return enqueued
