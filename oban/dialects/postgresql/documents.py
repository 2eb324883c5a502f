"""Conditions on `jsonb` and `text[]`, as containment (`@>`) where possible: a GIN index covers it."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    Integer,
    Numeric,
    Text,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    literal_column,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB

from oban import encoding
from oban.dialects.base import sql_literal
from oban.dialects.documents import Compare, Documents, Path, step


def is_a(kind: str, json: Any) -> ColumnElement[bool]:
    """Whether a `jsonb` is of a JSON type: "object", "array", "string", "number"."""
    return func.jsonb_typeof(json, type_=Text()) == sql_literal(kind)


class PostgreSQLDocuments(Documents):
    def equals(self, document: Any, path: Path, value: Any) -> ColumnElement[bool]:
        exact: ColumnElement[bool] = _at(document, path).is_not_distinct_from(_jsonb(value))
        if not _keys_only(path):
            return exact
        contained = _contains(document, _jsonb(_nested(path, value)))
        # A list contains each of its parts, a scalar only itself.
        return and_(contained, exact) if isinstance(value, (dict, list)) else contained

    def equals_column(self, document: Any, steps: Sequence[Any], column: Any) -> ColumnElement[bool]:
        if any(isinstance(place.type, Integer) for place in steps):
            return func.coalesce(_follow(document, steps) == func.to_jsonb(column), false())
        value = column
        for key in reversed(steps):
            value = func.jsonb_build_object(cast(key, Text), value, type_=JSONB())
        # A NULL of SQL equals nothing, but jsonb_build_object() would turn it into a JSON null.
        return and_(column.is_not(None), _contains(document, value))

    def compares(self, document: Any, path: Path, compare: Compare, value: Any) -> ColumnElement[bool]:
        found = _at(document, path)
        if isinstance(value, str):
            # The collation "C" orders by code points.
            holds = compare(_as_text(found).collate("C"), value)
            return case((is_a("string", found), holds), else_=false())
        number = cast(literal(encoding.dumps(value), Text()), Numeric())
        return case((is_a("number", found), compare(cast(found, Numeric()), number)), else_=false())

    def exists(self, document: Any, path: Path) -> ColumnElement[bool]:
        return _at(document, path).is_not(None)  # type: ignore[no-any-return]

    def contains(self, document: Any, path: Path, value: Any) -> ColumnElement[bool]:
        if _keys_only(path):
            return _contains(document, _jsonb(_nested(path, [value])))
        return func.coalesce(_contains(_at(document, path), _jsonb([value])), false())

    def integer(self, document: Any, path: Path) -> ColumnElement[int]:
        found = _at(document, path)
        whole = _as_text(found).op("~", return_type=Boolean())(sql_literal("^-?[0-9]{1,18}$"))
        return case((and_(is_a("number", found), whole), cast(found, BigInteger())))

    def string(self, document: Any, path: Path) -> ColumnElement[str]:
        found = _at(document, path)
        return case((is_a("string", found), _as_text(found)))

    def has_all(self, tags: Any, wanted: list[str]) -> ColumnElement[bool]:
        return type_coerce(tags, ARRAY(Text())).op("@>", return_type=Boolean())(_strings(wanted))

    def has_any(self, tags: Any, wanted: list[str]) -> ColumnElement[bool]:
        return type_coerce(tags, ARRAY(Text())).op("&&", return_type=Boolean())(_strings(wanted))


def _at(document: Any, path: Path) -> Any:
    return _follow(document, map(step, path))


def _follow(document: Any, steps: Iterable[Any]) -> Any:
    json: Any = type_coerce(document, JSONB())
    for place in steps:
        inner = json.op("->", return_type=JSONB())(cast(place, place.type))
        # PostgreSQL takes a scalar for a list of itself: '7'::jsonb -> 0 is 7.
        json = case((is_a("array", json), inner)) if isinstance(place.type, Integer) else inner
    return json


def _contains(json: Any, part: Any) -> ColumnElement[bool]:
    return type_coerce(json, JSONB()).op("@>", return_type=Boolean())(part)


def _as_text(json: Any) -> Any:
    return json.op("#>>", return_type=Text())(literal_column("'{}'"))


def _jsonb(value: Any) -> ColumnElement[Any]:
    return cast(literal(encoding.dumps(value), Text()), JSONB())


def _strings(values: list[str]) -> ColumnElement[Any]:
    return cast(literal(values, ARRAY(Text())), ARRAY(Text()))


def _keys_only(path: Path) -> bool:
    return all(isinstance(key, str) for key in path)


def _nested(path: Path, value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value
