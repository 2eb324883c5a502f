"""Everything that differs between databases. To support another one, implement `Dialect` and `Documents`.

A dialect knows SQL and its drivers, but no rules about jobs. The examples show PostgreSQL's SQL.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import URL, BindParameter, ColumnElement, Connection, FromClause, Insert, Select, Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from oban.dialects.documents import Documents
from oban.types import StateType

#: How many entries `errors` of a job can have: the first ones and the last ones, half of each.
MAX_ERRORS = 20
HALF = MAX_ERRORS // 2

#: Raised before the driver has an error of its own: no route, no answer, no free connection in the pool.
UNREACHABLE = (OSError, TimeoutError, sa.exc.TimeoutError)
#: Raised for a value while it becomes JSON or a parameter, before the database sees it.
UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError)

ColumnType = TypeEngine[Any] | type[TypeEngine[Any]]


def sql_literal(value: str) -> ColumnElement[Any]:
    """A string constant in the SQL text: one parameter less to send, and the planner sees the value."""
    return sa.literal_column("'" + value.replace("'", "''") + "'", sa.Text)


class InsertTrigger(NamedTuple):
    """What the database knows about the trigger that announces inserted jobs."""

    #: When it fires: `O` (unless the session is a replica), `A` (always), `R` (if it is one) or `D` (never);
    #: None if it does not exist.
    mode: str | None
    #: The body of its function.
    source: str | None
    #: Whether this session is a replica.
    replica: bool
    #: Whether announcements are turned off for this session.
    muted: bool


class Dialect(ABC):
    """One database. There is one instance of each subclass, in `oban.dialects.SUPPORTED`."""

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

    @property
    def drivers(self) -> list[str]:
        """The names of all drivers, the preferred one first."""
        return list(dict.fromkeys(self.async_drivers + self.sync_drivers))

    # -- expressions ---------------------------------------------------------------------------

    @abstractmethod
    def now(self) -> ColumnElement[datetime]:
        """The database's clock at the start of the statement, in UTC.

        Not at the start of the transaction: a caller's long transaction would give its jobs a past time.
        """

    @abstractmethod
    def now_plus(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        """`now()` plus a number of seconds, which can have a fraction and be NULL."""

    @abstractmethod
    def now_minus(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        """`now()` minus a number of seconds."""

    @abstractmethod
    def insert(self, table: Table) -> Insert:
        """The database's own INSERT construct, with `on_conflict_do_update` and `excluded`."""

    @abstractmethod
    def id_list(self, name: str = "ids") -> BindParameter[Any]:
        """A parameter for a list of ids, to be used with `in_ids`: of the type `bigint[]`."""

    @abstractmethod
    def in_ids(self, column: Any, ids: BindParameter[Any]) -> ColumnElement[bool]:
        """Whether a column's value is in a list that is sent as one parameter (`id_list`, `TextList`).

        `column = ANY (:ids)`: one SQL text, and so one plan, for lists of any length.
        """

    @abstractmethod
    def in_subquery(self, column: Any, query: Select[Any]) -> ColumnElement[bool]:
        """Whether a column's value is among the rows of a query that may LIMIT and lock them.

        The query has to run once, before the rows of the outer statement are looked up by the column:
        `column = ANY (ARRAY (SELECT … FOR UPDATE SKIP LOCKED))`.
        """

    @abstractmethod
    def recordset(self, payload: str, columns: Mapping[str, ColumnType]) -> FromClause:
        """The parameter named `payload`, a JSON list of objects, as a table with these columns.

        `jsonb_to_recordset(CAST(:payload AS jsonb)) AS r (id bigint, …)`. A missing key is NULL.
        """

    @abstractmethod
    def second_element(self, strings: Any) -> ColumnElement[str]:
        """The second string of a list, or NULL if there is none. `attempted_by` is `[node, uuid]`."""

    @abstractmethod
    def string_list(self, *items: ColumnElement[str]) -> ColumnElement[Any]:
        """A list of strings, as the column type `TextList` stores it: `ARRAY[…]`."""

    @abstractmethod
    def json_document(self, json: ColumnElement[str]) -> ColumnElement[Any]:
        """JSON text as the column type `JSONDocument` stores it: `CAST(… AS jsonb)`."""

    @abstractmethod
    def append_error(self, errors: Any, attempt: Any, error: Any) -> ColumnElement[Any]:
        """`errors` with `{"attempt": attempt, "at": now, "error": error}` appended.

        From `MAX_ERRORS` entries on, entries in the middle are removed. A value that is not a list counts
        as an empty one.
        """

    @abstractmethod
    def set_keys(self, document: Any, values: Mapping[str, Any]) -> ColumnElement[Any]:
        """A JSON object with top-level keys set; each value is an expression of JSON text.

        A document that is not an object counts as an empty one, here and in the next three methods.
        """

    @abstractmethod
    def merge(self, document: Any, json: ColumnElement[str]) -> ColumnElement[Any]:
        """A JSON object with the top-level keys of another one, which is not empty, as JSON text."""

    @abstractmethod
    def has_key(self, document: Any, key: str) -> ColumnElement[bool]:
        """Whether a JSON object has a top-level key."""

    @abstractmethod
    def without_keys(self, document: Any, *keys: str) -> ColumnElement[Any]:
        """A JSON object without some top-level keys."""

    @abstractmethod
    def version(self) -> ColumnElement[str]:
        """A string that differs between two versions of a row; the statement selects from one table.

        PostgreSQL has `xmin`. Where `begin_write` keeps all other writers out, it can be a constant.
        """

    # -- hints for the planner: without them, the same rows are found more slowly -------------------

    def state(self, value: str) -> ColumnElement[Any]:
        """A job state as a constant in the SQL text, so that the planner can use a partial index on it."""
        return sa.literal_column(f"'{value}'", StateType)

    def index_limit(self, limit: ColumnElement[int]) -> ColumnElement[int]:
        """A LIMIT that makes the planner walk an index in ORDER BY order instead of sorting all rows."""
        return limit

    def hint_partial_index(self, condition: ColumnElement[bool]) -> ColumnElement[bool]:
        """The condition of a partial index on the state, with a hint to use that index."""
        return condition

    def unindexed_state(self, column: Any) -> ColumnElement[Any]:
        """The column `state` as text, which no index has, so that the planner finds the rows by their ids."""
        return column  # type: ignore[no-any-return]

    # -- transactions and signals --------------------------------------------------------------

    def begin_write(self, connection: Connection) -> None:  # noqa: B027
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
        """The same for a connection of the driver."""

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
        """Like `is_memory`, asked of the database itself; None if it is what the URL says."""
        return None

    def prepare(self, connection: Connection) -> bool:
        """Configure the database when a node starts. The connection is not in a transaction.

        Returns whether the database was changed; `mode` then says how it is configured.
        """
        return False

    def mode(self, connection: Connection) -> str | None:
        """Why the database is not configured as `prepare` has done, in a sentence; None if it is."""
        return None

    def session_limits_sql(self, seconds: float) -> str | None:
        """A statement for new connections: the server ends what takes longer, or is idle in a transaction."""
        return None

    def table_schema(self, connection: Connection) -> str | None:
        """The schema in which a statement without a prefix finds `oban_jobs`; None without schemas."""
        return None

    @abstractmethod
    def is_missing_table(self, error: DBAPIError) -> bool:
        """Whether a statement failed because one of Oban's tables does not exist."""

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

    def cut(self, driver_connection: Any) -> None:  # noqa: B027
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

    def is_retryable(self, error: BaseException) -> bool:
        """Whether the failure is not the statement's fault, so that the same statement can succeed later."""
        if self.is_connection_error(error):
            return True
        return isinstance(error, DBAPIError) and (self.is_transient(error) or self.is_lost_statement(error))
