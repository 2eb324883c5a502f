"""What `Oban` and `SyncOban` share: options, engine, lookup by instance name, and batches of jobs."""

from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from itertools import islice
from typing import Any, ClassVar, Generic, Never, Self, TypeVar

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession

from oban import display
from oban.config import NotifierKind, Options, QueueOptions, Retention
from oban.enqueue_operations import CallerT, EnqueueOperations, MaybeAwaitable
from oban.errors import ConfigError, InvalidTarget
from oban.inspection_operations import InspectionOperations
from oban.instances import Instances
from oban.job_operations import JobOperations
from oban.middleware import Middleware
from oban.models import Job
from oban.periodic import Periodic
from oban.periodic_operations import PeriodicOperations
from oban.queue_operations import QueueOperations
from oban.read_operations import ReadOperations
from oban.repository.insert import collect_jobs
from oban.telemetry import Telemetry
from oban.worker_entries import declared_entries

EngineT = TypeVar("EngineT")


class BaseClient(
    EnqueueOperations[CallerT],
    ReadOperations[CallerT],
    JobOperations[CallerT],
    QueueOperations[CallerT],
    PeriodicOperations[CallerT],
    InspectionOperations[CallerT],
    Generic[EngineT, CallerT],
):
    """Base of both clients. Subclasses open the database, and run the repository's functions in it."""

    _instances: ClassVar[Instances]

    def __init__(
        self,
        engine: EngineT | CallerT | str | URL,
        *,
        name: str | None = None,
        node: str | None = None,
        prefix: str | None = None,
        queues: Mapping[str, int | QueueOptions | Mapping[str, Any]] | None = None,
        retention: Retention | Mapping[str, Any] | None = None,
        lease: float | timedelta | None = None,
        shutdown_grace_period: float | timedelta | None = None,
        notifier: NotifierKind | None = None,
        listen_url: str | None = None,
        statement_timeout: float | timedelta | None = None,
        rescue_after: float | timedelta | None = None,
        poll_interval: float | timedelta | None = None,
        stage_interval: float | timedelta | None = None,
        watch_interval: float | timedelta | None = None,
        control_interval: float | timedelta | None = None,
        progress_interval: float | timedelta | None = None,
        prune_interval: float | timedelta | None = None,
        heartbeat_interval: float | timedelta | None = None,
        election_interval: float | timedelta | None = None,
        rescue_interval: float | timedelta | None = None,
        session: Callable[[], AsyncSession] | None = None,
        session_connections: int | None = None,
        middleware: Sequence[Middleware] | None = None,
        timeout: float | timedelta | None = None,
        max_attempts: int | None = None,
        lifespan: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None,
        leadership: bool | None = None,
        history: bool | None = None,
        log_lines: int | None = None,
        periodic: Sequence[Periodic | Mapping[str, Any]] | None = None,
        **unknown: Never,
    ) -> None:
        """Create a client, which connects when it is first used. None means the default of an option.

        Where seconds are mentioned, an option takes a number of them or a timedelta.

        Args:
            engine: The application's engine, or a database URL, for which an engine is created. It can also
                be a session or connection, in a test or a script. Then each call without `session` runs in a
                savepoint of its transaction, nothing is committed, and the client takes no queues.
            name: Instance name, by which workers and `get_instance` find the client (default "Oban").
            node: Name of this node, stored in `attempted_by` (default: the host name).
            prefix: Schema of the tables, on PostgreSQL only (default: the connection's).
            queues: Names and limits of the queues to run, such as `{"default": 10}`: up to 10,000 jobs at
                once (default: none, so that nothing runs here). `{"default": {"limit": 10, "paused": True}}`
                starts paused. `SyncOban` takes none.
            retention: How long finished jobs are kept (default: 1 day, discarded jobs 7 days).
            lease: Seconds without a heartbeat after which a node or leader counts as dead and its jobs
                are rescued, at least 0.1 (default 60).
            shutdown_grace_period: Seconds that running jobs can continue after `stop` (default 15).
            notifier: "listen", which uses LISTEN on PostgreSQL and `data_version` on SQLite, or "poll",
                which works through a pooler in transaction mode (default "listen").
            listen_url: Database URL for LISTEN, past a pooler that `engine` goes through (default: none).
            statement_timeout: Seconds that one of the runner's statements can take, including the wait
                for a connection, at least 0.1 (default 30).
            rescue_after: Age in seconds at which an executing job is rescued if its node keeps no heartbeat
                row, as some other implementations do not, at least 0.1 (default 3600).
            poll_interval: Seconds between a node's checks for jobs that nothing announced (default 1).
            stage_interval: Most seconds between two checks for jobs that have become due (default 1).
            watch_interval: Seconds between checks whether running jobs were cancelled (default 1).
            control_interval: Seconds between a node's checks for new commands for queues (default 1).
            progress_interval: Least seconds between two statements in which a node stores the progress of its
                jobs (default 1).
            prune_interval: Seconds between deletions of jobs past their retention (default 30).
            heartbeat_interval: Seconds between heartbeats, up to half of the lease (default: a quarter).
            election_interval: Seconds between attempts to lead, up to half of the lease (default: a quarter).
            rescue_interval: Seconds between checks for jobs of dead nodes (default: a quarter of the lease).
            session: An `async_sessionmaker`, or another function that returns a new `AsyncSession`, for the
                sessions of jobs (default: `AsyncSession` with `expire_on_commit=False`). `SyncOban` takes
                none.
            session_connections: How many connections the sessions of async jobs can use at once on this node,
                and how many those of plain workers can use in addition, 1 to 10,000. Further jobs wait
                for one (default 50).
            middleware: Functions that run around each attempt on this node, async or plain, the outermost
                first: `async def middleware(job, call_next): return await call_next(job)` (default: none).
            timeout: Seconds that an attempt on this node can take if its worker sets no timeout (default: no
                limit). A worker with `timeout=None` has none.
            max_attempts: How many attempts a job has that this client enqueues, if neither its worker nor the
                call says so, 1 to 32,767 (default 20).
            lifespan: A function that takes this client and returns an async context manager, which is
                entered when a node with queues starts, and exited after its jobs have ended. Workers get
                what it yields: a mapping, or one object (default: none).
            leadership: Whether this node can become the leader, which rescues and prunes jobs and inserts
                periodic ones. At least one node of the instance has to (default True).
            history: Whether this client stores a row for each attempt of a job that ends here, for
                `list_attempts` (default True).
            log_lines: How many lines of `job.log` are kept with each attempt, up to 10,000; 0 for none
                (default 100).
            periodic: Entries of periodic jobs, in addition to those of workers with the option `cron`:
                `[Periodic("nightly", "0 3 * * *", Report.new())]`. Nodes with queues declare them when they
                start (default: none). `SyncOban` takes none.

        Raises:
            ConfigError: An option is unknown or has a wrong value, or the engine or URL cannot be used.
        """
        # `unknown` is for the error, which suggests an option; type checkers refuse any value for it.
        options = {key: value for key, value in locals().items() if key not in ("self", "engine", "unknown")}
        self.options: Options = Options.make(**options, **unknown)
        #: The handlers of this client's events.
        self.telemetry: Telemetry = Telemetry(self.options.name, self.options.node)
        # Refuses two entries of the same name.
        declared_entries(self.options.name, self.options.periodic)
        self._open(engine)
        self._instances.register(self.options.name, self)

    @abstractmethod
    def _open(self, engine: EngineT | CallerT | str | URL) -> None:
        """Set up the database of this client; raises `ConfigError`."""

    @classmethod
    def get_instance(cls, name: str = "Oban") -> Self:
        """Return the newest client of this class with an instance name, in this process.

        Raises:
            InstanceNotFound: There is none, or it was garbage-collected.
        """
        instance: Self = cls._instances.get(name)
        return instance

    @property
    @abstractmethod
    def engine(self) -> EngineT:
        """The engine that all statements go through: the application's, or one created for the URL."""

    @property
    def is_leader(self) -> bool:
        """Whether this node leads its instance: it rescues and prunes jobs, and inserts periodic ones.

        Always false with `leadership=False`, and for a client without queues.
        """
        return False

    @abstractmethod
    def start(self) -> MaybeAwaitable[None]:
        """Start running jobs, if there are queues; otherwise do nothing. `SyncOban` runs none.

        Raises:
            SchemaMissing: The tables are not in the database yet, or of an older version (`SchemaOutdated`).
            DatabaseUnavailable: The database cannot be reached, or refuses the connection.
        """

    @abstractmethod
    def stop(self) -> MaybeAwaitable[None]:
        """Stop running jobs, and close the connections of an engine that was created for a URL.

        Queues fetch no more jobs, and running jobs can continue for `shutdown_grace_period` seconds. Jobs
        that are still running then see `job.cancelled()`, their tasks are cancelled, and they become
        `available` again; that attempt does not count. A second call while the first one waits ends the
        grace period.
        """


def batches(jobs: Iterable[Job], size: int) -> Iterator[list[Job]]:
    """Yield new jobs as lists of `size`, of which only one is in memory at a time, for `enqueue_stream`."""
    if isinstance(jobs, Job) or not isinstance(jobs, Iterable):
        raise InvalidTarget(f"an iterable of jobs is needed, not {type(jobs).__name__}")
    check_size(size, "batch")
    remaining = iter(jobs)
    while batch := collect_jobs(islice(remaining, size)):
        yield batch
        del batch


async def async_batches(jobs: Iterable[Job] | AsyncIterable[Job], size: int) -> AsyncIterator[list[Job]]:
    """Do the same for an iterable or an async one."""
    if not isinstance(jobs, AsyncIterable):
        for batch in batches(jobs, size):
            yield batch
            del batch
        return
    check_size(size, "batch")
    batch = []
    async for job in jobs:
        batch.append(job)
        if len(batch) == size:
            yield collect_jobs(batch)
            batch = []
    if batch:
        yield collect_jobs(batch)


def check_size(size: object, name: str) -> None:
    """Raise `ConfigError` unless the argument `name` is a positive number of jobs."""
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ConfigError(f"{name} must be a positive number of jobs, not {display.shown(size)}")
