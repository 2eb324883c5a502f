"""Everything that differs between databases. To support another one, implement `Dialect` and `Documents`.

A dialect knows SQL and its drivers, but no rules about jobs.
"""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sa
from sqlalchemy import URL, Connection, Executable, Result
from sqlalchemy.exc import DBAPIError

from oban import clock
from oban.dialects.documents import Documents
from oban.dialects.expressions import Expressions

#: Raised before the driver has an error of its own: no route, no answer, no free connection in the pool.
UNREACHABLE = (OSError, TimeoutError, sa.exc.TimeoutError)
#: Raised for a value while it becomes JSON or a parameter, before the database sees it.
UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError)


class Executor(Protocol):
    """What runs statements in a transaction: a `Connection` of SQLAlchemy's, or a `Transaction`."""

    def execute(self, statement: Executable, parameters: Any = None, /) -> "Result[*tuple[Any, ...]]": ...


class InsertTrigger(NamedTuple):
    """The state of the trigger that announces inserted jobs."""

    #: When it fires: `O` (unless the session is a replica), `A` (always), `R` (if it is one) or `D` (never);
    #: None if it does not exist.
    mode: str | None
    #: The body of its function.
    source: str | None
    #: Whether this session is a replica.
    replica: bool
    #: Whether announcements are turned off for this session.
    muted: bool


class Dialect(Expressions):
    """One database. There is one instance for each, in `oban.dialects.SUPPORTED`, and its moved variant.

    Args:
        moved: The variant whose `now` is the time of `oban.clock`, for tests that move it.
    """

    #: SQLAlchemy's name of the database: `engine.dialect.name`.
    name: str
    #: How conditions on args, meta and tags are written.
    documents: Documents
    #: Names of drivers, the preferred one first: those for asyncio, and those without.
    async_drivers: tuple[str, ...]
    sync_drivers: tuple[str, ...]
    #: The driver that migrations use instead of the URL's, if any.
    sync_driver: str | None
    #: Whether a task can be cancelled while it waits for a statement; if not, it is awaited first.
    interruptible: bool
    #: Whether tables can be in a schema, so that `prefix` is allowed.
    has_schemas: bool
    #: Whether a trigger announces inserted jobs; if not, the client does that after each insert.
    insert_notifies: bool
    #: Whether a statement can contain another one that writes: `WITH … AS (UPDATE … RETURNING …) SELECT …`.
    writes_in_cte: bool
    #: Whether the database carries signals between processes (LISTEN and NOTIFY); if not, nodes poll.
    listens: bool
    #: The isolation level that Oban's own transactions use; None if the database has only one.
    isolation: str | None
    #: The statement that begins a transaction at that level, where the driver would begin none.
    begin_statement: str
    #: Whether connections lead to a server, which can end them while they are idle.
    is_remote: bool
    #: Whether only one transaction can write at a time. The writers of a process then take turns.
    single_writer: bool
    #: The column, of every table, by which the rows of one statement are found fastest.
    row_address: str
    #: Whether the index of `oban_attempts` knows only which blocks of the table have ids in which ranges.
    has_range_index: bool

    def __init__(self, moved: "Dialect | None" = None) -> None:
        self._moved = moved
        #: The dialect whose `now` is the database's own clock, whatever a test does. Leases and heartbeats go
        #: by it.
        self.real_clock: Dialect = self
        if moved is not None:
            moved.real_clock = self

    def for_current_clock(self) -> "Dialect":
        """The dialect for statements about jobs: this one or, while a test moves the clock, its variant."""
        return self._moved if self._moved is not None and clock.moved() else self

    @property
    def drivers(self) -> list[str]:
        """The names of all drivers, the preferred one first."""
        return list(dict.fromkeys(self.async_drivers + self.sync_drivers))

    # -- transactions and signals --------------------------------------------------------------

    def begin_write(self, connection: Executor) -> None:
        """Where rows cannot be locked, keep other writers out until the end of the transaction."""

    def takes_lock(self, statement: str) -> bool:
        """Whether a statement keeps out all other writers until the end of its transaction.

        Only for a `single_writer`.
        """
        return False

    def total_changes(self, connection: Connection) -> int:
        """A number that grows when the connection changes rows. Only for a `single_writer`."""
        return 0

    @abstractmethod
    def driver_autocommits(self, connection: Connection) -> bool:
        """Whether the driver is set to commit each statement on its own. Asks no server."""

    def in_transaction(self, connection: Connection) -> bool:
        """Whether the driver's connection is in a transaction, whoever has begun it."""
        return self.driver_in_transaction(connection.connection.driver_connection)

    @abstractmethod
    def driver_in_transaction(self, driver: Any) -> bool:
        """Do the same as `in_transaction`, for a connection of the driver."""

    def begins_early(self, driver: Any) -> bool:
        """Whether the driver is always in a transaction, so that being in one says nothing."""
        return False

    @abstractmethod
    def begin_migration(self, connection: Connection, prefix: str) -> None:
        """Make other migrations of the same tables wait until the end of the transaction.

        `prefix` is the schema, or an empty string. The method can be called twice in a transaction.
        """

    def notify(
        self, connection: Connection, prefix: str | None, channel: str, payloads: Iterable[dict[str, Any]]
    ) -> None:
        """Send JSON payloads on a channel if and when the transaction commits. Only called if `listens`."""
        raise NotImplementedError

    def insert_trigger(self, connection: Connection, schema: str | None) -> InsertTrigger | None:
        """The trigger of `oban_jobs` in a schema; None without that table, or where none is needed."""
        return None

    # -- engines and errors --------------------------------------------------------------------

    def check_url(self, url: URL) -> URL:
        """The URL with its parameters in their usual spelling; raises `ConfigError` for a wrong one."""
        return url

    def driver_url(self, url: URL) -> URL:
        """The part of a checked URL that SQLAlchemy passes on as it is; `engine_options` has the rest."""
        return url

    @abstractmethod
    def engine_options(self, url: URL, pooled: bool = False) -> dict[str, Any]:
        """Arguments of `create_engine` for an engine that Oban creates itself.

        With `pooled`, a transaction pooler such as PgBouncer is in front of the server: each transaction
        can run in another server session, so nothing that outlives it, such as a prepared statement, works.
        """

    def is_memory(self, url: URL) -> bool:
        """Whether the database exists only in this process, within a single connection."""
        return False

    def missing_file(self, url: URL) -> str | None:
        """Which file or directory of the database does not exist, as a clause; None if it is all there."""
        return None

    def same_file(self, url: URL, other: URL) -> bool:
        """Whether two URLs name the same file. Only for a `single_writer`."""
        return False

    def refusal(self, url: URL) -> str | None:
        """Why no node can run on the database of a URL, in a sentence; None if one can."""
        return None

    def refused_as(self, error: DBAPIError, url: URL) -> str | None:
        """Which setting of the URL made a statement fail, in a sentence; None for any other failure."""
        return None

    def holds_memory(self, connection: Connection) -> bool | None:
        """Ask the database itself whether it is in memory; None if the URL alone decides."""
        return None

    def prepare(self, connection: Connection) -> bool:
        """Configure the database when a node starts. The connection is not in a transaction.

        Returns whether the database was changed; `mode` then says how it is configured.
        """
        return False

    def mode(self, connection: Connection) -> str | None:
        """Why the database is not configured as `prepare` has done, in a sentence; None if it is."""
        return None

    def connection_sql(self, url: URL) -> str | None:
        """A statement for new connections of an engine that is made for a URL."""
        return None

    def session_limits_sql(self, seconds: float) -> str | None:
        """A statement for new connections of the runner, in addition to what the application does with them.

        The server then ends what takes longer, or is idle in a transaction.
        """
        return None

    def transaction_limits_sql(self, seconds: float) -> str | None:
        """A statement that sets the same limits for the current transaction only, as behind a pooler."""
        return None

    def table_schema(self, connection: Connection) -> str | None:
        """The schema in which a statement without a prefix finds `oban_jobs`; None without schemas."""
        return None

    @abstractmethod
    def is_missing_table(self, error: DBAPIError) -> bool:
        """Whether a statement failed because one of Oban's tables does not exist."""

    @abstractmethod
    def is_missing_column(self, error: DBAPIError) -> bool:
        """Whether a statement failed because a column does not exist."""

    def is_lost_statement(self, error: Exception) -> bool:
        """Whether a prepared statement is unknown to the server, or its name is taken: see `pooled`."""
        return False

    def is_stale_plan(self, error: DBAPIError) -> bool:
        """Whether a statement has to be prepared again, as a table has changed. It was not executed."""
        return False

    @abstractmethod
    def is_transient(self, error: DBAPIError) -> bool:
        """Whether the transaction can succeed if it is repeated at once: a deadlock, a busy lock."""

    @abstractmethod
    def is_connection_error(self, error: BaseException) -> bool:
        """Whether the database cannot be used at the moment: it is down, full, read-only or too slow.

        The statement is not at fault. It is repeated later, however long that takes.
        """

    def is_lost(self, driver_connection: Any) -> bool | None:
        """Whether an idle connection was ended, as far as the driver knows without a round trip.

        None if it may have been: something has arrived on it. Only called if `is_remote`.
        """
        return None

    def cut(self, driver_connection: Any) -> None:
        """End a connection at once, from any thread, whatever waits for its answer."""

    def refuses_connection(self, error: BaseException) -> bool:
        """Whether an error that was raised for a new connection comes from the database, or the way to it."""
        return self.is_connection_error(error)

    def is_full(self, error: BaseException) -> bool:
        """Whether the server refuses a connection because it, the database or the role has too many."""
        return False

    @abstractmethod
    def is_bad_value(self, error: BaseException) -> bool:
        """Whether a statement failed, and will always fail, because of a value in its parameters."""

    def is_locked(self, error: BaseException) -> bool:
        """Whether a statement gave up because another transaction keeps one of its rows locked."""
        return False

    def is_retryable(self, error: BaseException) -> bool:
        """Whether the failure is not the statement's fault, so that the same statement can succeed later."""
        if self.is_connection_error(error):
            return True
        return isinstance(error, DBAPIError) and (self.is_transient(error) or self.is_lost_statement(error))
