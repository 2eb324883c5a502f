"""What filters ask about the documents and lists of a job, in the words of each database.

Every condition is true or false, never NULL: what is missing, or of another kind, does not match.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    Float,
    Integer,
    Numeric,
    ScalarSelect,
    Text,
    Uuid,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    literal_column,
    select,
    true,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB

from oban import encoding
from oban.dialects.base import sql_literal

Path = Sequence[str | int]
Compare = Callable[[Any, Any], ColumnElement[bool]]
_NUMBERS = ("integer", "real")


def step(key: str | int) -> ColumnElement[Any]:
    """One step of a path as a parameter."""
    return literal(key, Text()) if isinstance(key, str) else literal(key, Integer())


class Documents(ABC):
    """Conditions on a JSON column `document`, at a path of keys and places in lists."""

    @abstractmethod
    def equals(self, document: Any, path: Path, value: Any) -> ColumnElement[bool]:
        """Whether there is this JSON value."""

    @abstractmethod
    def same(self, document: Any, steps: Sequence[Any], other: Any) -> ColumnElement[bool]:
        """Whether there is the value of another column, an integer, a text or a UUID."""

    @abstractmethod
    def compares(self, document: Any, path: Path, compare: Compare, value: Any) -> ColumnElement[bool]:
        """How the number, or the text, that is there compares with one."""

    @abstractmethod
    def exists(self, document: Any, path: Path) -> ColumnElement[bool]:
        """Whether there is anything, a null included."""

    @abstractmethod
    def holds(self, document: Any, path: Path, value: Any) -> ColumnElement[bool]:
        """Whether there is a list with a null, boolean, number or text in it."""

    @abstractmethod
    def integer(self, document: Any, path: Path) -> ColumnElement[int]:
        """The integer that is there, else NULL."""

    @abstractmethod
    def text(self, document: Any, path: Path) -> ColumnElement[str]:
        """The text that is there, else NULL."""

    @abstractmethod
    def all_of(self, texts: Any, wanted: list[str]) -> ColumnElement[bool]:
        """Whether a list of texts has all of some."""

    @abstractmethod
    def any_of(self, texts: Any, wanted: list[str]) -> ColumnElement[bool]:
        """Whether a list of texts has one of some."""


class PostgreSQLDocuments(Documents):
    """Containment where that says the same, for which a GIN index serves."""

    def equals(self, document: Any, path: Path, value: Any) -> ColumnElement[bool]:
        json = type_coerce(document, JSONB())
        exact: ColumnElement[bool] = _at(json, map(step, path)).is_not_distinct_from(_jsonb(value))
        if not _keys_only(path):
            return exact
        contained = json.op("@>", return_type=Boolean())(_jsonb(_nested(path, value)))
        # A list contains each of its parts, a scalar only itself.
        return and_(contained, exact) if isinstance(value, (dict, list)) else contained

    def same(self, document: Any, steps: Sequence[Any], other: Any) -> ColumnElement[bool]:
        json = type_coerce(document, JSONB())
        if any(isinstance(place.type, Integer) for place in steps):
            return func.coalesce(_at(json, steps) == func.to_jsonb(other), false())
        given = other
        for key in reversed(steps):
            other = func.jsonb_build_object(cast(key, Text), other, type_=JSONB())
        # Nothing is equal to NULL, but in JSON it is a value.
        return and_(given.is_not(None), json.op("@>", return_type=Boolean())(other))

    def compares(self, document: Any, path: Path, compare: Compare, value: Any) -> ColumnElement[bool]:
        found = _at(type_coerce(document, JSONB()), map(step, path))
        if isinstance(value, str):
            # By code points, as SQLite does.
            there: Any = _plain(found).collate("C")
            return case((_kind(found) == sql_literal("string"), compare(there, value)), else_=false())
        number = cast(literal(encoding.dumps(value), Text()), Numeric())
        return case(
            (_kind(found) == sql_literal("number"), compare(cast(found, Numeric()), number)), else_=false()
        )

    def exists(self, document: Any, path: Path) -> ColumnElement[bool]:
        there: ColumnElement[bool] = _at(type_coerce(document, JSONB()), map(step, path)).is_not(None)
        return there

    def holds(self, document: Any, path: Path, value: Any) -> ColumnElement[bool]:
        json = type_coerce(document, JSONB())
        if _keys_only(path):
            return json.op("@>", return_type=Boolean())(_jsonb(_nested(path, [value])))
        found = _at(json, map(step, path))
        return func.coalesce(found.op("@>", return_type=Boolean())(_jsonb([value])), false())

    def integer(self, document: Any, path: Path) -> ColumnElement[int]:
        found = _at(type_coerce(document, JSONB()), map(step, path))
        whole = _plain(found).op("~", return_type=Boolean())(sql_literal("^-?[0-9]{1,18}$"))
        return case((and_(_kind(found) == sql_literal("number"), whole), cast(found, BigInteger())))

    def text(self, document: Any, path: Path) -> ColumnElement[str]:
        found = _at(type_coerce(document, JSONB()), map(step, path))
        return case((_kind(found) == sql_literal("string"), _plain(found)))

    def all_of(self, texts: Any, wanted: list[str]) -> ColumnElement[bool]:
        return type_coerce(texts, ARRAY(Text())).op("@>", return_type=Boolean())(_texts(wanted))

    def any_of(self, texts: Any, wanted: list[str]) -> ColumnElement[bool]:
        return type_coerce(texts, ARRAY(Text())).op("&&", return_type=Boolean())(_texts(wanted))


def _at(json: Any, steps: Any) -> Any:
    for place in steps:
        inner = json.op("->", return_type=JSONB())(cast(place, place.type))
        # A scalar counts as a list of itself there.
        json = (
            case((_kind(json) == sql_literal("array"), inner)) if isinstance(place.type, Integer) else inner
        )
    return json


def _plain(json: Any) -> Any:
    return json.op("#>>", return_type=Text())(literal_column("'{}'"))


def _kind(json: Any) -> ColumnElement[Any]:
    return func.jsonb_typeof(json, type_=Text())


def _jsonb(value: Any) -> ColumnElement[Any]:
    return cast(literal(encoding.dumps(value), Text()), JSONB())


def _texts(wanted: list[str]) -> ColumnElement[Any]:
    return cast(literal(wanted, ARRAY(Text())), ARRAY(Text()))


def _keys_only(path: Path) -> bool:
    return all(isinstance(key, str) for key in path)


def _nested(path: Path, value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value


_DIGITS_18 = literal_column(str(10**18 - 1), BigInteger())


class SQLiteDocuments(Documents):
    """Steps down the document, one `json_each` each: paths in its own language cannot name every key."""

    def equals(self, document: Any, path: Path, value: Any) -> ColumnElement[bool]:
        if not isinstance(value, (dict, list)):
            return self._exists(document, path, lambda found: _is(found, value))
        # Part by part: the same object may be written in many ways.
        parts = list(value.items() if isinstance(value, dict) else enumerate(value))
        kind = "object" if isinstance(value, dict) else "array"

        def as_many(found: Any) -> ColumnElement[bool]:
            size = select(func.count()).select_from(
                func.json_each(_if(found, kind)).table_valued("key", name="part")
            )
            return and_(found.c.type == sql_literal(kind), size.scalar_subquery() == len(parts))

        sized = self._exists(document, path, as_many)
        return and_(sized, *(self.equals(document, [*path, key], part) for key, part in parts))

    def same(self, document: Any, steps: Sequence[Any], other: Any) -> ColumnElement[bool]:
        def equal(found: Any) -> ColumnElement[bool]:
            if isinstance(other.type, Integer):
                return and_(found.c.type == sql_literal("integer"), found.c.value == other)
            if isinstance(other.type, Uuid):
                # Stored without its dashes.
                bare = func.replace(found.c.value, sql_literal("-"), sql_literal(""), type_=Text())
                return and_(found.c.type == sql_literal("text"), bare == other)
            return and_(found.c.type == sql_literal("text"), found.c.value == other)

        return self._found(document, steps, equal)

    def compares(self, document: Any, path: Path, compare: Compare, value: Any) -> ColumnElement[bool]:
        kinds = ("text",) if isinstance(value, str) else _NUMBERS
        return self._exists(
            document, path, lambda found: and_(_of(found, *kinds), compare(found.c.value, _parameter(value)))
        )

    def exists(self, document: Any, path: Path) -> ColumnElement[bool]:
        return self._exists(document, path, lambda found: true())

    def holds(self, document: Any, path: Path, value: Any) -> ColumnElement[bool]:
        def listed(found: Any) -> ColumnElement[bool]:
            item = func.json_each(_if(found, "array")).table_valued("value", "type", name="item")
            return select(literal_column("1")).select_from(item).where(_is(item, value)).exists()

        return self._exists(document, path, listed)

    def integer(self, document: Any, path: Path) -> ColumnElement[int]:
        found = self._value(document, path, "integer", BigInteger())
        return case((found.between(-_DIGITS_18, _DIGITS_18), found))

    def text(self, document: Any, path: Path) -> ColumnElement[str]:
        return self._value(document, path, "text", Text())

    def all_of(self, texts: Any, wanted: list[str]) -> ColumnElement[bool]:
        return and_(true(), *(self.any_of(texts, [text]) for text in wanted))

    def any_of(self, texts: Any, wanted: list[str]) -> ColumnElement[bool]:
        each = func.json_each(_valid(texts, "array", "[]")).table_valued("value", name="tag")
        held = each.c.value.in_([literal(text, Text()) for text in wanted])
        return select(literal_column("1")).select_from(each).where(held).exists()

    def _exists(
        self, document: Any, path: Path, test: Callable[[Any], ColumnElement[bool]]
    ) -> ColumnElement[bool]:
        return self._found(document, [step(key) for key in path], test)

    def _found(
        self, document: Any, steps: Sequence[Any], test: Callable[[Any], ColumnElement[bool]]
    ) -> ColumnElement[bool]:
        source, last = _walk(document, steps)
        found: Any = select(literal_column("1")).select_from(source).where(test(last))
        # A column that is compared with belongs to a statement around this one, however far out.
        exists: ColumnElement[bool] = found.correlate_except(source).exists()
        return exists

    def _value(self, document: Any, path: Path, kind: str, type_: Any) -> ScalarSelect[Any]:
        source, last = _walk(document, [step(key) for key in path])
        value = type_coerce(last.c.value, type_)
        return (
            select(value)
            .select_from(source)
            .where(_of(last, kind))
            .limit(literal_column("1"))
            .scalar_subquery()
        )


def _walk(document: Any, steps: Sequence[Any]) -> tuple[Any, Any]:
    """What to select from, and the last level: its `type` and `value` are what is at the path."""
    last = _level(_object(document), 0)
    source: Any = select(literal_column("1")).subquery("path").join(last, last.c.key == steps[0])
    for number, place in enumerate(steps[1:], 1):
        held = _if(last, "array" if isinstance(place.type, Integer) else "object")
        last = _level(held, number)
        source = source.join(last, last.c.key == place)
    return source, last


def _level(document: ColumnElement[Any], number: int) -> Any:
    return func.json_each(document).table_valued("key", "value", "type", name=f"level_{number}")


def _object(document: Any) -> ColumnElement[Any]:
    return _valid(document, "object", "{}")


def _valid(document: Any, kind: str, default: str) -> ColumnElement[Any]:
    # CASE decides in order: JSON functions refuse other texts.
    plain = type_coerce(document, Text())
    return case(
        (func.json_valid(plain) == literal_column("0"), sql_literal(default)),
        (func.json_type(plain) == sql_literal(kind), plain),
        else_=sql_literal(default),
    )


def _of(found: Any, *kinds: str) -> ColumnElement[bool]:
    return found.c.type.in_([sql_literal(kind) for kind in kinds])  # type: ignore[no-any-return]


def _if(found: Any, kind: str) -> ColumnElement[Any]:
    """The list or object at a level; nothing of anything else."""
    empty = "[]" if kind == "array" else "{}"
    return case((found.c.type == sql_literal(kind), found.c.value), else_=sql_literal(empty))


def _is(found: Any, value: Any) -> ColumnElement[bool]:
    if value is None or isinstance(value, bool):
        return found.c.type == sql_literal("null" if value is None else str(value).lower())  # type: ignore[no-any-return]
    kinds = ("text",) if isinstance(value, str) else _NUMBERS
    return and_(_of(found, *kinds), found.c.value == _parameter(value))


def _parameter(value: Any) -> ColumnElement[Any]:
    if isinstance(value, str):
        return literal(value, Text())
    # Of an integer beyond its own, SQLite's JSON makes a float.
    whole = isinstance(value, int) and -(2**63) <= value < 2**63
    return literal(value, BigInteger()) if whole else literal(float(value), Float())


BY_NAME: dict[str, Documents] = {"postgresql": PostgreSQLDocuments(), "sqlite": SQLiteDocuments()}
