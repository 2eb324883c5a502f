"""Conditions on `jsonb` and `text[]`, as containment (`@>`) where possible: a GIN index covers it."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement
from sqlalchemy.dialects.postgresql import JSONB

from oban import encoding
from oban.dialects.documents import Compare, Documents, Path, step
from oban.dialects.expressions import sql_literal


def is_a(kind: str, json: Any) -> ColumnElement[bool]:
    """Whether a `jsonb` is of a JSON type: "object", "array", "string", "number"."""
    return sa.func.jsonb_typeof(json, type_=sa.Text()) == sql_literal(kind)


class PostgreSQLDocuments(Documents):
    def equals(self, document: Any, path: Path, value: Any) -> ColumnElement[bool]:
        exact: ColumnElement[bool] = _at(document, path).is_not_distinct_from(_jsonb(value))
        if not _keys_only(path):
            return exact
        contained = _contains(document, _jsonb(_nested(path, value)))
        # A list contains each of its parts, a scalar only itself.
        return sa.and_(contained, exact) if isinstance(value, (dict, list)) else contained

    def equals_column(self, document: Any, steps: Sequence[Any], column: Any) -> ColumnElement[bool]:
        if any(isinstance(place.type, sa.Integer) for place in steps):
            return sa.func.coalesce(_at(document, steps) == sa.func.to_jsonb(column), sa.false())
        value = column
        for key in reversed(steps):
            value = sa.func.jsonb_build_object(sa.cast(key, sa.Text), value, type_=JSONB())
        # A NULL of SQL equals nothing, but jsonb_build_object() would turn it into a JSON null.
        return sa.and_(column.is_not(None), _contains(document, value))

    def compares(self, document: Any, path: Path, compare: Compare, value: Any) -> ColumnElement[bool]:
        found = _at(document, path)
        if isinstance(value, str):
            # The collation "C" orders by code points.
            kind, holds = "string", compare(_as_text(found).collate("C"), value)
        else:
            number = sa.cast(sa.literal(encoding.dumps(value), sa.Text()), sa.Numeric())
            kind, holds = "number", compare(sa.cast(found, sa.Numeric()), number)
        return sa.case((is_a(kind, found), holds), else_=sa.false())

    def exists(self, document: Any, path: Path) -> ColumnElement[bool]:
        return _at(document, path).is_not(None)  # type: ignore[no-any-return]

    def contains(self, document: Any, path: Path, value: Any) -> ColumnElement[bool]:
        if _keys_only(path):
            return _contains(document, _jsonb(_nested(path, [value])))
        return sa.func.coalesce(_contains(_at(document, path), _jsonb([value])), sa.false())

    def integer(self, document: Any, path: Path) -> ColumnElement[int]:
        found = _at(document, path)
        whole = _as_text(found).op("~", return_type=sa.Boolean())(sql_literal("^-?[0-9]{1,18}$"))
        return sa.case((sa.and_(is_a("number", found), whole), sa.cast(found, sa.BigInteger())))

    def string(self, document: Any, path: Path) -> ColumnElement[str]:
        found = _at(document, path)
        return sa.case((is_a("string", found), _as_text(found)))

    def has_all(self, tags: Any, wanted: list[str]) -> ColumnElement[bool]:
        return sa.type_coerce(tags, sa.ARRAY(sa.Text())).op("@>", return_type=sa.Boolean())(_strings(wanted))

    def has_any(self, tags: Any, wanted: list[str]) -> ColumnElement[bool]:
        return sa.type_coerce(tags, sa.ARRAY(sa.Text())).op("&&", return_type=sa.Boolean())(_strings(wanted))

    def stored_size(self, document: Any) -> ColumnElement[int]:
        # Without reading what is stored out of line.
        return sa.func.pg_column_size(document, type_=sa.Integer())

    def has_part(self, tags: Any, text: str) -> ColumnElement[bool]:
        # Faster than a subquery of unnest(). No text that people search for has the separator in it.
        joined = sa.func.array_to_string(sa.type_coerce(tags, sa.ARRAY(sa.Text())), sql_literal("\x1f"))
        found = sa.type_coerce(joined, sa.Text()).icontains(text, autoescape=True)
        return sa.func.coalesce(found, sa.false())


def _at(document: Any, path: Sequence[Any]) -> Any:
    json: Any = sa.type_coerce(document, JSONB())
    for place in map(step, path):
        inner = json.op("->", return_type=JSONB())(sa.cast(place, place.type))
        # PostgreSQL takes a scalar for a list of itself: '7'::jsonb -> 0 is 7.
        json = sa.case((is_a("array", json), inner)) if isinstance(place.type, sa.Integer) else inner
    return json


def _contains(json: Any, part: Any) -> ColumnElement[bool]:
    return sa.type_coerce(json, JSONB()).op("@>", return_type=sa.Boolean())(part)


def _as_text(json: Any) -> Any:
    return json.op("#>>", return_type=sa.Text())(sa.literal_column("'{}'"))


def _jsonb(value: Any) -> ColumnElement[Any]:
    return sa.cast(sa.literal(encoding.dumps(value), sa.Text()), JSONB())


def _strings(values: list[str]) -> ColumnElement[Any]:
    return sa.cast(sa.literal(values, sa.ARRAY(sa.Text())), sa.ARRAY(sa.Text()))


def _keys_only(path: Path) -> bool:
    return all(isinstance(key, str) for key in path)


def _nested(path: Path, value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value
