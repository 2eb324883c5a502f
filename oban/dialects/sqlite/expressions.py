"""The `Expressions` of SQLite: lists and documents as JSON text, times as strings."""

from collections.abc import Mapping
from datetime import datetime
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BindParameter, ColumnElement, FromClause, Insert, Select, Table
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.types import TypeDecorator

from oban import encoding
from oban.dialects.expressions import HALF, MAX_ERRORS, ColumnType, Expressions, sql_literal
from oban.dialects.sqlite.documents import json_or_empty
from oban.types import UTCDateTime

# With six digits after the point, as SQLAlchemy stores a time, so that strings compare as times do.
_NOW = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


class _IdList(TypeDecorator[list[int]]):
    """Ids as one parameter: a JSON list."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: list[int] | None, dialect: Any) -> str:
        return encoding.dumps(value)


class SQLiteExpressions(Expressions):
    def now(self) -> ColumnElement[datetime]:
        return sa.literal_column(_NOW, UTCDateTime)

    def now_plus(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        return self._shifted("+%.3f seconds", seconds)

    def now_minus(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        return self._shifted("-%.3f seconds", seconds)

    def _shifted(self, modifier: str, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        return sa.func.strftime(
            sql_literal("%Y-%m-%d %H:%M:%f000"),
            self._time(),
            sa.func.printf(sql_literal(modifier), seconds),
            type_=UTCDateTime,
        )

    def _time(self) -> ColumnElement[Any]:
        """The time that functions of dates begin with."""
        return sql_literal("now")

    def _error_time(self) -> ColumnElement[str]:
        return sa.literal_column("strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')")

    def insert(self, table: Table) -> Insert:
        return insert(table)

    def id_list(self, name: str = "ids") -> BindParameter[Any]:
        return sa.bindparam(name, type_=_IdList)

    def in_ids(self, column: Any, ids: BindParameter[Any]) -> ColumnElement[bool]:
        return column.in_(sa.select(sa.literal_column("value")).select_from(sa.func.json_each(ids)))  # type: ignore[no-any-return]

    def in_subquery(self, column: Any, query: Select[Any]) -> ColumnElement[bool]:
        return column.in_(query)  # type: ignore[no-any-return]

    def recordset(self, payload: str, columns: Mapping[str, ColumnType]) -> FromClause:
        each = sa.func.json_each(sa.bindparam(payload, type_=sa.Text)).table_valued("value", name="each")
        values = (
            sa.func.json_extract(each.c.value, sql_literal(f"$.{name}"), type_=type_).label(name)
            for name, type_ in columns.items()
        )
        return sa.select(*values).subquery("r")

    def element(self, strings: Any, index: int, *, if_json: Any = None) -> ColumnElement[str]:
        path = sql_literal(f"$[{index}]")
        is_invalid = sa.func.json_valid(strings) == sa.literal_column("0")
        return sa.case(
            # json_type() and json_extract() fail the whole statement for text that is not JSON.
            (is_invalid if if_json is None else sa.and_(sa.not_(if_json), is_invalid), sa.null()),
            (
                sa.func.json_type(strings, path) == sql_literal("text"),
                sa.func.json_extract(strings, path, type_=sa.Text),
            ),
            else_=sa.null(),
        )

    def string_list(self, *items: ColumnElement[str]) -> ColumnElement[Any]:
        return sa.func.json_array(*items, type_=sa.Text)

    def json_document(self, json: ColumnElement[str]) -> ColumnElement[Any]:
        return json

    def append_error(self, errors: Any, attempt: Any, error: Any) -> ColumnElement[Any]:
        entries = json_or_empty(errors, "array")
        middle = sql_literal(f"$[{HALF}]")
        length = sa.func.json_array_length(entries)
        shortened = sa.case(
            (length < sa.literal_column(str(MAX_ERRORS)), entries),
            (length == sa.literal_column(str(MAX_ERRORS)), sa.func.json_remove(entries, middle)),
            # Another implementation has made the list longer: it becomes shorter by one entry each time.
            else_=sa.func.json_remove(entries, middle, middle),
        )
        keys = (sql_literal(key) for key in ("attempt", "at", "error"))
        entry = sa.func.json_object(
            *chain.from_iterable(zip(keys, (attempt, self._error_time(), error), strict=True))
        )
        return sa.func.json_insert(shortened, sql_literal("$[#]"), entry)

    def set_keys(self, document: Any, values: Mapping[str, Any]) -> ColumnElement[Any]:
        pairs = ((sql_literal(f"$.{key}"), sa.func.json(value)) for key, value in values.items())
        return sa.func.json_set(json_or_empty(document, "object"), *chain.from_iterable(pairs))

    def merge(self, document: Any, json: ColumnElement[str]) -> ColumnElement[Any]:
        # json_patch() would merge nested objects as well, and drop nulls. It is right for removing keys. The
        # texts of two objects without a key in common are then joined, so that no value changes.
        key = sa.func.json_each(json).table_valued("key", name="merged").c.key
        removed = sa.select(sa.func.json_group_object(key, sa.null())).scalar_subquery()
        rest = sa.func.json_patch(json_or_empty(document, "object"), removed, type_=sa.Text)
        # All but the last character.
        opened = sa.func.substr(
            rest, sa.literal_column("-1"), sa.literal_column(str(-(2**31))), type_=sa.Text
        )
        joined = opened.op("||")(sql_literal(",")).op("||")(sa.func.substr(json, sa.literal_column("2")))
        return sa.case((rest == sql_literal("{}"), json), else_=joined)

    def has_key(self, document: Any, key: str) -> ColumnElement[bool]:
        return sa.func.json_type(json_or_empty(document, "object"), sql_literal(f"$.{key}")).is_not(None)

    def without_keys(self, document: Any, *keys: str) -> ColumnElement[Any]:
        paths = (sql_literal(f"$.{key}") for key in keys)
        return sa.func.json_remove(json_or_empty(document, "object"), *paths)

    def unindexed_state(self, column: Any) -> ColumnElement[Any]:
        # SQLite would use the index on the state, and compare each executing row with all of the ids.
        return sa.cast(column, sa.Text)

    def hint_partial_index(self, condition: ColumnElement[bool]) -> ColumnElement[bool]:
        # Without ANALYZE, which nobody runs, SQLite assumes that an equality matches few rows, and prefers
        # the five-column index on the state to the partial one.
        return sa.func.likely(condition)

    def version(self) -> ColumnElement[str]:
        # Since `begin_write`, nobody else can change a row that was read.
        return sql_literal("")
