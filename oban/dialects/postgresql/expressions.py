"""The `Expressions` of PostgreSQL: jsonb, arrays, and what the planner has to be told."""

from collections.abc import Mapping
from datetime import datetime
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BindParameter, ColumnElement, FromClause, Insert, Select, Table
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, array, insert
from sqlalchemy.types import TypeDecorator

from oban.dialects.expressions import HALF, MAX_ERRORS, ColumnType, Expressions, sql_literal
from oban.dialects.postgresql.documents import is_a
from oban.types import JSONDocument, TextList, UTCDateTime

_NATIVE: dict[Any, Any] = {JSONDocument: JSONB, TextList: ARRAY(sa.Text)}
_EMPTY_LIST: ColumnElement[Any] = sa.literal_column("CAST('[]' AS jsonb)")
_EMPTY_OBJECT: ColumnElement[Any] = sa.literal_column("CAST('{}' AS jsonb)")
# The first half and the second one, less one entry: one more is about to be appended.
_ENDS = f"$[0 to {HALF - 1}, last - {HALF - 2} to last]"


def _object(document: Any) -> ColumnElement[Any]:
    return sa.case((is_a("object", document), document), else_=_EMPTY_OBJECT)


class _IdList(TypeDecorator[list[int]]):
    """A list of ids, which is sent as one string.

    asyncpg would ask the server about `bigint[]` on each new connection, and sends `text[]` more slowly. The
    planner still sees constants.
    """

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:
        return None if value is None else ",".join(map(str, value))

    def bind_expression(self, bindparam: BindParameter[Any]) -> ColumnElement[Any]:
        return sa.cast(sa.func.string_to_array(bindparam, sql_literal(",")), ARRAY(sa.BigInteger))


class PostgreSQLExpressions(Expressions):
    def now(self) -> ColumnElement[datetime]:
        # Unlike clock_timestamp(), it is stable within a statement, so an index can be used for it.
        return sa.literal_column("timezone('UTC', statement_timestamp())", UTCDateTime)

    def now_plus(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        return self.now() + sa.func.make_interval(*(sa.literal_column("0"),) * 6, seconds)

    def now_minus(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        return self.now() - sa.func.make_interval(*(sa.literal_column("0"),) * 6, seconds)

    def insert(self, table: Table) -> Insert:
        return insert(table)

    def id_list(self, name: str = "ids") -> BindParameter[Any]:
        return sa.bindparam(name, type_=_IdList)

    def in_ids(self, column: Any, ids: BindParameter[Any]) -> ColumnElement[bool]:
        return column == sa.any_(ids)  # type: ignore[no-any-return]

    def in_subquery(self, column: Any, query: Select[Any]) -> ColumnElement[bool]:
        # ARRAY() makes the query run once, whatever the planner expects of its LIMIT, and the rows are then
        # found by primary key. With a join, a generic plan can scan the whole table instead.
        ids = sa.func.array(query.scalar_subquery(), type_=ARRAY(sa.BigInteger))
        return column == sa.any_(ids)  # type: ignore[no-any-return]

    def index_limit(self, limit: ColumnElement[int]) -> ColumnElement[int]:
        # With a constant LIMIT and missing or stale statistics (after a bulk load, say) the planner
        # underestimates the matching rows, collects all of them with a bitmap scan and sorts them. For a
        # LIMIT that is a subquery it assumes a tenth of the rows, so the ordered index scan wins.
        return sa.select(limit).scalar_subquery()

    def recordset(self, payload: str, columns: Mapping[str, ColumnType]) -> FromClause:
        typed = [sa.column(name, _NATIVE.get(type_, type_)) for name, type_ in columns.items()]
        rows = sa.func.jsonb_to_recordset(sa.cast(sa.bindparam(payload, type_=sa.Text), JSONB))
        return rows.table_valued(*typed).render_derived(name="r", with_types=True)

    def element(self, strings: Any, index: int, *, if_json: Any = None) -> ColumnElement[str]:
        return sa.type_coerce(strings, ARRAY(sa.Text))[sa.literal_column(str(index + 1))]

    def string_list(self, *items: ColumnElement[str]) -> ColumnElement[Any]:
        return array(items, type_=sa.Text)

    def json_document(self, json: ColumnElement[str]) -> ColumnElement[Any]:
        return sa.cast(json, JSONB)

    def append_error(self, errors: Any, attempt: Any, error: Any) -> ColumnElement[Any]:
        at = sa.func.to_char(self.now(), sql_literal('YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
        keys = (sql_literal(key) for key in ("attempt", "at", "error"))
        pairs = zip(keys, (attempt, at, error), strict=True)
        entry = sa.func.jsonb_build_object(*chain.from_iterable(pairs))
        shortened = sa.case(
            (~is_a("array", errors), _EMPTY_LIST),
            (sa.func.jsonb_array_length(errors) < sa.literal_column(str(MAX_ERRORS)), errors),
            else_=sa.func.jsonb_path_query_array(errors, sql_literal(_ENDS)),
        )
        return shortened.op("||")(entry)

    def set_keys(self, document: Any, values: Mapping[str, Any]) -> ColumnElement[Any]:
        pairs = ((sql_literal(key), sa.cast(sa.cast(value, sa.Text), JSONB)) for key, value in values.items())
        return _object(document).op("||")(sa.func.jsonb_build_object(*chain.from_iterable(pairs)))

    def merge(self, document: Any, json: ColumnElement[str]) -> ColumnElement[Any]:
        return _object(document).op("||")(sa.cast(json, JSONB))

    def has_key(self, document: Any, key: str) -> ColumnElement[bool]:
        return sa.func.jsonb_exists(_object(document), sql_literal(key), type_=sa.Boolean)

    def without_keys(self, document: Any, *keys: str) -> ColumnElement[Any]:
        return _object(document).op("-")(array([sql_literal(key) for key in keys]))

    def unindexed_state(self, column: Any) -> ColumnElement[Any]:
        # If ANALYZE saw no executing rows, the planner considers the five-column index for
        # "state = 'executing'" cheapest, and scans it once for each id.
        return sa.cast(column, sa.Text)

    def version(self) -> ColumnElement[str]:
        return sa.literal_column("CAST(xmin AS text)", sa.Text)
