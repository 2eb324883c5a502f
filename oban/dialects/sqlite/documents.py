"""Conditions on JSON text. Each step of a path is a `json_each`: SQLite's own paths cannot name every key."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement

from oban.dialects.documents import Compare, Documents, Path, step
from oban.dialects.expressions import sql_literal

_EMPTY = {"object": "{}", "array": "[]"}
_NUMBERS = ("integer", "real")
_DIGITS_18 = sa.literal_column(str(10**18 - 1), sa.BigInteger())
_ONE: ColumnElement[Any] = sa.literal_column("1")
_PLAIN_KEY = re.compile("[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_Test = Callable[[Any], ColumnElement[bool]]


def json_or_empty(document: Any, kind: str) -> ColumnElement[Any]:
    """JSON text if it is an "object" (an "array"), else an empty one.

    SQLite's JSON functions fail the whole statement for text that is not JSON. CASE decides in order.
    """
    text = sa.type_coerce(document, sa.Text())
    return sa.case(
        (sa.func.json_valid(text) == sa.literal_column("0"), sql_literal(_EMPTY[kind])),
        (sa.func.json_type(text) == sql_literal(kind), text),
        else_=sql_literal(_EMPTY[kind]),
    )


class SQLiteDocuments(Documents):
    def equals(self, document: Any, path: Path, value: Any) -> ColumnElement[bool]:
        if not isinstance(value, (dict, list)):
            exact = _exists(document, path, lambda found: _is(found, value))
            found = _extracted(document, path)
            if value is None or found is None:
                return exact
            # For nearly all rows, this decides, in a third of the time. It can also use an index.
            compared = _parameter(int(value) if isinstance(value, bool) else value)
            # Unlike `=`, this is never NULL.
            return sa.and_(found.op("IS", is_comparison=True)(compared), exact)
        # Part by part: the same object can be written in many ways.
        parts = list(value.items() if isinstance(value, dict) else enumerate(value))
        kind = "object" if isinstance(value, dict) else "array"

        def has_size(found: Any) -> ColumnElement[bool]:
            each = sa.func.json_each(_inside(found, kind)).table_valued("key", name="part")
            size = sa.select(sa.func.count()).select_from(each).scalar_subquery()
            return sa.and_(found.c.type == sql_literal(kind), size == len(parts))

        sized = _exists(document, path, has_size)
        return sa.and_(sized, *(self.equals(document, [*path, key], part) for key, part in parts))

    def equals_column(self, document: Any, steps: Sequence[Any], column: Any) -> ColumnElement[bool]:
        def equal(found: Any) -> ColumnElement[bool]:
            kind = "integer" if isinstance(column.type, sa.Integer) else "text"
            value = found.c.value
            if isinstance(column.type, sa.Uuid):
                # The column is stored without dashes.
                value = sa.func.replace(value, sql_literal("-"), sql_literal(""), type_=sa.Text())
            return sa.and_(found.c.type == sql_literal(kind), value == column)

        return _exists(document, steps, equal)

    def compares(self, document: Any, path: Path, compare: Compare, value: Any) -> ColumnElement[bool]:
        kinds = ("text",) if isinstance(value, str) else _NUMBERS

        def holds(found: Any) -> ColumnElement[bool]:
            return sa.and_(_is_one_of(found, *kinds), compare(found.c.value, _parameter(value)))

        return _exists(document, path, holds)

    def exists(self, document: Any, path: Path) -> ColumnElement[bool]:
        return _exists(document, path, lambda found: sa.true())

    def contains(self, document: Any, path: Path, value: Any) -> ColumnElement[bool]:
        def has_item(found: Any) -> ColumnElement[bool]:
            item = sa.func.json_each(_inside(found, "array")).table_valued("value", "type", name="item")
            return sa.select(sa.literal_column("1")).select_from(item).where(_is(item, value)).exists()

        return _exists(document, path, has_item)

    def integer(self, document: Any, path: Path) -> ColumnElement[int]:
        found = _value(document, path, "integer", sa.BigInteger())
        return sa.case((found.between(-_DIGITS_18, _DIGITS_18), found))

    def string(self, document: Any, path: Path) -> ColumnElement[str]:
        return _value(document, path, "text", sa.Text())

    def has_all(self, tags: Any, wanted: list[str]) -> ColumnElement[bool]:
        return sa.and_(sa.true(), *(self.has_any(tags, [tag]) for tag in wanted))

    def has_any(self, tags: Any, wanted: list[str]) -> ColumnElement[bool]:
        each = sa.func.json_each(json_or_empty(tags, "array")).table_valued("value", name="tag")
        matches = each.c.value.in_([sa.literal(tag, sa.Text()) for tag in wanted])
        return sa.select(sa.literal_column("1")).select_from(each).where(matches).exists()

    def stored_size(self, document: Any) -> ColumnElement[int]:
        return sa.func.length(sa.type_coerce(document, sa.Text()), type_=sa.Integer())

    def has_part(self, tags: Any, text: str) -> ColumnElement[bool]:
        each = sa.func.json_each(json_or_empty(tags, "array")).table_valued("value", name="tag")
        matches = sa.type_coerce(each.c.value, sa.Text()).icontains(text, autoescape=True)
        return sa.select(sa.literal_column("1")).select_from(each).where(matches).exists()


def _exists(document: Any, path: Sequence[Any], test: _Test) -> ColumnElement[bool]:
    source, last = _walk(document, path)
    found: Any = sa.select(sa.literal_column("1")).select_from(source).where(test(last))
    # A column in the test belongs to the statement around this one, however far out.
    return found.correlate_except(source).exists()  # type: ignore[no-any-return]


def _value(document: Any, path: Path, kind: str, type_: Any) -> ColumnElement[Any]:
    source, last = _walk(document, path)
    value = sa.select(sa.type_coerce(last.c.value, type_)).select_from(source).where(_is_one_of(last, kind))
    return value.limit(sa.literal_column("1")).scalar_subquery()


def _extracted(document: Any, path: Path) -> ColumnElement[Any] | None:
    """The value at a path by SQLite's own function; None if such a path cannot name a key.

    The path is a constant in the SQL text, so that an index on the same expression can be used.
    """
    if not all(isinstance(key, int) or _PLAIN_KEY.fullmatch(key) for key in path):
        return None
    steps = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    text = sa.type_coerce(document, sa.Text())
    value = sa.func.json_extract(text, sql_literal(f"${''.join(steps)}"), type_=sa.types.NullType())
    # The function fails for text that is not JSON.
    return sa.case((sa.func.json_valid(text) == _ONE, value))


def _walk(document: Any, path: Sequence[Any]) -> tuple[Any, Any]:
    """The FROM clause that follows a path, and its last level, whose `type` and `value` are at the path."""
    steps = [step(key) for key in path]
    last = _level(json_or_empty(document, "object"), 0)
    source: Any = sa.select(sa.literal_column("1")).subquery("path").join(last, last.c.key == steps[0])
    for number, place in enumerate(steps[1:], 1):
        last = _level(_inside(last, "array" if isinstance(place.type, sa.Integer) else "object"), number)
        source = source.join(last, last.c.key == place)
    return source, last


def _level(document: ColumnElement[Any], number: int) -> Any:
    return sa.func.json_each(document).table_valued("key", "value", "type", name=f"level_{number}")


def _inside(found: Any, kind: str) -> ColumnElement[Any]:
    """The list or object at a level, or an empty one where there is something else."""
    return sa.case((found.c.type == sql_literal(kind), found.c.value), else_=sql_literal(_EMPTY[kind]))


def _is_one_of(found: Any, *kinds: str) -> ColumnElement[bool]:
    return found.c.type.in_([sql_literal(kind) for kind in kinds])  # type: ignore[no-any-return]


def _is(found: Any, value: Any) -> ColumnElement[bool]:
    if value is None or isinstance(value, bool):
        return found.c.type == sql_literal("null" if value is None else str(value).lower())  # type: ignore[no-any-return]
    kinds = ("text",) if isinstance(value, str) else _NUMBERS
    return sa.and_(_is_one_of(found, *kinds), found.c.value == _parameter(value))


def _parameter(value: Any) -> ColumnElement[Any]:
    if isinstance(value, str):
        return sa.literal(value, sa.Text())
    # SQLite's JSON functions turn an integer beyond 64 bits into a float.
    whole = isinstance(value, int) and -(2**63) <= value < 2**63
    return sa.literal(value, sa.BigInteger()) if whole else sa.literal(float(value), sa.Float())
