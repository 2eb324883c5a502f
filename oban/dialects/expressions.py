"""`Expressions`: the SQL expressions that differ between databases. The examples show PostgreSQL's SQL."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BindParameter, ColumnElement, FromClause, Insert, Select, Table
from sqlalchemy.types import TypeEngine

from oban.types import StateType

#: How many entries `errors` of a job can have: the first ones and the last ones, half of each.
MAX_ERRORS = 20
HALF = MAX_ERRORS // 2

ColumnType = TypeEngine[Any] | type[TypeEngine[Any]]


def sql_literal(value: str) -> ColumnElement[Any]:
    """A string constant in the SQL text: one parameter less to send, and the planner sees the value."""
    return sa.literal_column("'" + value.replace("'", "''") + "'", sa.Text)


class Expressions(ABC):
    """Builds SQL of one database."""

    @abstractmethod
    def now(self) -> ColumnElement[datetime]:
        """The database's clock at the start of the statement, in UTC.

        Not at the start of the transaction: a caller's long transaction would give its jobs a past time.
        While a test moves the clock, `Transaction.dialect` is a variant whose time is `oban.clock.now()`.
        Heartbeats and leases go by `Dialect.real_clock.now()`, which is always the database's.
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
    def element(self, strings: Any, index: int, *, if_json: Any = None) -> ColumnElement[str]:
        """A string of a list, the first one with index 0; NULL if the list has fewer.

        `attempted_by` is `[node, uuid]`. Where the condition `if_json` is true, a list that is stored as text
        is known to be JSON, and is not checked again.
        """

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
