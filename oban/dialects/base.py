"""Everything that a database may do differently, named once. A new database supplies these.

A dialect knows SQL and its driver, and nothing of the rules for jobs.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import (
    URL,
    BindParameter,
    ColumnElement,
    Connection,
    FromClause,
    Insert,
    Select,
    Table,
    Text,
    bindparam,
    exc,
    literal_column,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from oban.types import IdList, StateType

#: Where a session keeps what it will announce at commit, if the database does not do it.
NOTICES = "oban.notices"

#: How many errors of a job are kept: the first ones and the last ones, as many of each.
MAX_ERRORS = 20
HALF = MAX_ERRORS // 2

#: Raised before a driver has anything to say: no route, no answer, no free connection in the pool.
UNREACHABLE = (OSError, TimeoutError, exc.TimeoutError)
#: Raised for a value by what turns it into JSON or a parameter, before the database sees it.
UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError)

ColumnType = TypeEngine[Any] | type[TypeEngine[Any]]


def sql_literal(value: str) -> ColumnElement[Any]:
    """A text written into the SQL: one parameter less to send, one fact more for the planner."""
    return literal_column("'" + value.replace("'", "''") + "'", Text)


class Dialect(ABC):
    """What the repository, the runner and the migrations ask of a database."""

    #: SQLAlchemy's name of the database.
    name: str
    #: Drivers that work with asyncio, and those that work without, the preferred one first.
    async_drivers: tuple[str, ...]
    sync_drivers: tuple[str, ...]
    #: The driver that migrations use whatever the URL says, if they need not be async.
    sync_driver: str | None
    #: Whether a task may be cancelled while it waits for a statement. If not, it ends first.
    interruptible: bool
    #: Whether there are schemas, so that a prefix makes sense.
    has_schemas: bool
    #: Whether an INSERT wakes the runners by itself, through a trigger.
    insert_notifies: bool
    #: Whether a statement may hold others that write (`WITH … AS (UPDATE …)`).
    writes_in_cte: bool
    #: Whether NOTIFY carries signals between processes.
    listens: bool
    #: The isolation level that the statements are written for, if there is more than one.
    isolation: str | None
    #: Whether only one connection can write at a time, so that writers of a process queue up.
    single_writer: bool

    @property
    def drivers(self) -> list[str]:
        """All drivers that work, the preferred one first."""
        return list(dict.fromkeys(self.async_drivers + self.sync_drivers))

    # -- expressions ---------------------------------------------------------------------------

    @abstractmethod
    def now(self) -> ColumnElement[datetime]:
        """The database's clock at the start of the statement, as UTC."""

    @abstractmethod
    def now_plus(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        """`now` and some seconds more."""

    @abstractmethod
    def now_minus(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        """`now` less some seconds."""

    @abstractmethod
    def insert(self, table: Table) -> Insert:
        """An INSERT that has `on_conflict_do_update` and `excluded`."""

    @abstractmethod
    def in_ids(self, column: Any, ids: BindParameter[Any]) -> ColumnElement[bool]:
        """Whether a column's value is in a list given as one parameter (see `id_list`)."""

    @abstractmethod
    def in_subquery(self, column: Any, query: Select[Any]) -> ColumnElement[bool]:
        """Whether a column's value is among those that a locking query picks, run once, first."""

    def index_limit(self, limit: ColumnElement[int]) -> ColumnElement[int]:
        """A limit for the first rows in the order of an index, to have them read in that order."""
        return limit

    @abstractmethod
    def recordset(self, payload: str, columns: Mapping[str, ColumnType]) -> FromClause:
        """The JSON list of objects in the text parameter `payload` as rows."""

    @abstractmethod
    def second_element(self, texts: Any) -> ColumnElement[str]:
        """The second element of a list of texts."""

    @abstractmethod
    def string_list(self, *items: ColumnElement[str]) -> ColumnElement[Any]:
        """A list of texts."""

    @abstractmethod
    def json_document(self, json: ColumnElement[str]) -> ColumnElement[Any]:
        """A JSON text as a document to be stored."""

    @abstractmethod
    def append_error(self, errors: Any, attempt: Any, error: Any) -> ColumnElement[Any]:
        """A list of errors with `{"attempt", "at": now, "error"}` added.

        Of `MAX_ERRORS` and more, some in the middle give way. What is no list counts as an empty one.
        """

    @abstractmethod
    def set_keys(self, document: Any, values: Mapping[str, Any]) -> ColumnElement[Any]:
        """A JSON object with some top-level keys set to JSON texts. What is no object counts as empty."""

    @abstractmethod
    def has_key(self, document: Any, key: str) -> ColumnElement[bool]:
        """Whether a JSON object has a top-level key."""

    @abstractmethod
    def without_keys(self, document: Any, *keys: str) -> ColumnElement[Any]:
        """A JSON object without some top-level keys."""

    def state(self, value: str) -> ColumnElement[Any]:
        """A state as a constant in the SQL text, so that partial indexes are seen to apply."""
        return literal_column(f"'{value}'", StateType)

    @abstractmethod
    def version(self) -> ColumnElement[str]:
        """What differs between two versions of a row, of the only table that a statement selects from."""

    def hint_partial_index(self, condition: ColumnElement[bool]) -> ColumnElement[bool]:
        """A condition on the state that is one of a partial index, to put the planner on that index."""
        return condition

    def unindexed_state(self, column: Any) -> ColumnElement[Any]:
        """A state column in a form that no index on it serves, to keep the planner on the ids."""
        return column  # type: ignore[no-any-return]

    @staticmethod
    def id_list(name: str = "ids") -> BindParameter[Any]:
        """A parameter that takes a list of ids."""
        return bindparam(name, type_=IdList)

    # -- transactions and signals --------------------------------------------------------------

    @abstractmethod
    def begin_write(self, session: Session) -> None:
        """Make what is read from here on safe from other writers, where rows cannot be locked."""

    def has_locked(self, connection: Connection) -> bool:
        """Whether the transaction of a connection keeps out all others that write."""
        return False

    @abstractmethod
    def begin_migration(self, connection: Connection, prefix: str) -> None:
        """Within a transaction: let whoever migrates the same tables meanwhile wait for its end."""

    @abstractmethod
    def notify(
        self, session: Session, prefix: str | None, channel: str, payloads: Iterable[dict[str, Any]]
    ) -> None:
        """Announce payloads on a channel when the session's transaction commits, and only then."""

    # -- engines and errors --------------------------------------------------------------------

    @abstractmethod
    def engine_options(self, url: URL, pooled: bool = False) -> dict[str, Any]:
        """Arguments of `create_engine` for an engine that Oban makes itself.

        `pooled`: each transaction may go to another session of the server.
        """

    def is_memory(self, url: URL) -> bool:
        """Whether the database lives in one connection of this process."""
        return False

    @abstractmethod
    def prepare(self, connection: Connection) -> None:
        """Set up a database for a runner, once, outside of a transaction."""

    def session_limits_sql(self, seconds: float) -> str | None:
        """What to run on a new connection so that the server ends, by itself, what takes longer there."""
        return None

    @abstractmethod
    def current_schema(self, connection: Connection) -> str | None:
        """The schema in which tables without one are found."""

    @abstractmethod
    def is_missing_table(self, error: DBAPIError) -> bool:
        """Whether a statement failed because a table does not exist."""

    def is_lost_statement(self, error: Exception) -> bool:
        """Whether the server does not know a prepared statement, or one of its name is another."""
        return False

    @abstractmethod
    def is_transient(self, error: DBAPIError) -> bool:
        """Whether the same transaction, run again at once, may well succeed: a deadlock, a lock."""

    @abstractmethod
    def is_connection_error(self, error: BaseException) -> bool:
        """Whether the database cannot be used now: away, full, read-only, or it took too long."""

    @abstractmethod
    def is_bad_value(self, error: BaseException) -> bool:
        """Whether a statement failed because of a value in its parameters, and will always."""

    def is_retryable(self, error: BaseException) -> bool:
        """Whether a failure has nothing to do with what the statement says, so that it will pass."""
        if self.is_connection_error(error):
            return True
        return isinstance(error, DBAPIError) and (self.is_transient(error) or self.is_lost_statement(error))
