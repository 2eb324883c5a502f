"""JSON is stored unchanged or refused, and errors become strings that can be stored."""

import datetime
import enum
import ipaddress
import math
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import orjson
import pytest

from oban import Job, encoding, error_texts, fields
from oban.errors import EncodingError


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Name(str):
    __slots__ = ()


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


VALUES: list[Any] = [
    *(None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**64 - 1),
    *(0.0, -0.0, 0.1, 1e-7, 5e-324, 1.7976931348623157e308, 1e22),
    *("", "text", "é ü 漢字", "🎉", "\x01\x1f\x7f", '"\\/\b\n', "\u2028\u2029", "\ufffe\uffff"),
    *({}, [], [[]], {"": ""}, {"a": {"b": [None, {"c": 1.5}]}}, {"é": 1, "\n": 2}),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_json_value_comes_back_as_it_is(value: Any) -> None:
    copy = encoding.json_value(value, "x")
    assert copy == value
    assert type(copy) is type(value)
    assert orjson.loads(encoding.dumps(copy)) == value


def test_the_copy_shares_nothing_with_the_original() -> None:
    original: dict[str, Any] = {"list": [{"deep": []}], "dict": {"a": [1]}}
    copy = encoding.json_object(original, "args")
    original["list"][0]["deep"].append(1)
    original["dict"]["a"].append(2)
    original["more"] = 1
    assert copy == {"list": [{"deep": []}], "dict": {"a": [1]}}


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ((1, (2,)), [1, [2]]),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Name("n"), "n"),
        ({Colour.RED: Level.HIGH}, {"red": 3}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    ],
)
def test_subclasses_and_values_with_a_json_equivalent_are_converted(value: Any, plain: Any) -> None:
    copy = encoding.json_value(value, "x")
    assert copy == plain
    assert type(copy) is type(plain)
    if isinstance(copy, dict):
        assert [type(key) for key in copy] == [str] * len(copy)
        assert [type(item) for item in copy.values()] == [int] * len(copy)


@pytest.mark.parametrize(
    ("value", "field", "problem"),
    [
        ({"a": [1, {"b": b""}]}, 'args["a"][1]["b"]', "is not JSON: bytes"),
        ({"a": ({1},)}, 'args["a"][0]', "is not JSON: set"),
        ({"a": math.nan}, 'args["a"]', "is nan, which JSON cannot hold"),
        ({"a": [math.inf]}, 'args["a"][0]', "is inf"),
        ({"a": "x\x00"}, 'args["a"]', "NUL"),
        ({"a": ["\udc80"]}, 'args["a"][0]', "lone surrogate"),
        ({"a": 2**64}, 'args["a"]', "more than 64 bits"),
        ({"a": -(2**63) - 1}, 'args["a"]', "more than 64 bits"),
        ({"a": {1: 2}}, 'args["a"]', "key that is not a string"),
        ({"a": {True: 2}}, 'args["a"]', "key that is not a string"),
        ({"a": {"\x00": 2}}, 'args["a"]', "NUL"),
        ({"a": {"\ud800": 2}}, 'args["a"]', "surrogate"),
        ({"a": complex(1, 2)}, 'args["a"]', "is not JSON: complex"),
        ({"a": bytearray()}, 'args["a"]', "is not JSON: bytearray"),
        ({"a": iter([])}, 'args["a"]', "is not JSON: list_iterator"),
        ({"a": nested(101)}, 'args["a"]', "nested more than 100 levels deep"),
        ([], "args", "must be a dict, not list"),
        (None, "args", "must be a dict, not NoneType"),
        ((), "args", "must be a dict, not tuple"),
        (0, "args", "must be a dict, not int"),
        (set(), "args", "must be a dict, not set"),
    ],
)
def test_what_json_cannot_carry_unchanged_is_refused_with_its_path(
    value: Any, field: str, problem: str
) -> None:
    with pytest.raises(EncodingError) as caught:
        encoding.json_object(value, "args")
    # The path also leads to a key, and to a deeply nested value.
    assert caught.value.field.startswith(field)
    assert problem in str(caught.value)
    # The path is shown as a string, whatever characters a key has.
    str(caught.value).encode()
    assert "\x00" not in str(caught.value)


def test_a_value_that_holds_itself_is_refused() -> None:
    value: dict[str, Any] = {}
    value["self"] = [value]
    with pytest.raises(EncodingError, match="nested more than 100 levels deep"):
        encoding.json_object(value, "args")


def test_a_hundred_levels_are_stored() -> None:
    assert encoding.json_value(nested(100), "x") == nested(100)


def test_the_size_is_measured_in_bytes_of_json() -> None:
    # Two quotes around the string, and four characters around those.
    room = encoding.MAX_BYTES - len('{"a":""}')
    assert len(encoding.json_object({"a": "x" * room}, "args")["a"]) == room
    with pytest.raises(EncodingError, match=rf"args is {encoding.MAX_BYTES + 1:,} bytes of JSON; at most"):
        encoding.json_object({"a": "x" * (room + 1)}, "args")
    with pytest.raises(EncodingError, match="bytes of JSON"):
        encoding.json_object({"a": "é" * (room // 2 + 1)}, "args")


@dataclass
class Point:
    x: int


class Model:
    def model_dump(self, mode: str) -> Any: ...


class Array:
    """As one of numpy's, which is not comparable either."""

    def tolist(self) -> Any: ...

    def __eq__(self, other: object) -> Any:
        return [False, True]

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


class Plain(enum.Enum):
    ONE = 1


class Today(datetime.date, enum.Enum):
    IT = (2026, 1, 1)


OtherBool = type("bool", (), {"__module__": "numpy"})

#: A value, the name of its type, the advice, and whether typed args would convert it.
ADVICE: list[tuple[Any, str, str, bool]] = [
    (uuid.uuid4(), "UUID", "use str(value)", True),
    (Decimal("1.5"), "Decimal", "use str(value)", True),
    (PurePosixPath("a"), "PurePosixPath", "use str(value)", True),
    (ipaddress.ip_address("::1"), "IPv6Address", "use str(value)", True),
    (datetime.date(2026, 1, 1), "date", "use value.isoformat()", True),
    (datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), "datetime", "use value.isoformat()", True),
    (datetime.time(1), "time", "use value.isoformat()", True),
    (datetime.timedelta(1), "timedelta", "use value.total_seconds()", True),
    (Plain.ONE, "Plain", "use value.value", True),
    (Today.IT, "Today", "use value.value", True),
    (b"x", "bytes", "use value.decode(), or base64 for binary data", True),
    (frozenset({1}), "frozenset", "use list(value)", True),
    (Point(1), "Point", "use dataclasses.asdict(value)", True),
    (Model(), "Model", 'use value.model_dump(mode="json")', True),
    (Array(), "Array", "use value.tolist()", False),
    (OtherBool(), "numpy.bool", "use strings, numbers, booleans, None, lists and dicts", False),
    (MappingProxyType({}), "mappingproxy", "use dict(value)", False),
    (deque([1]), "deque", "use list(value)", False),
    (Job(worker="w"), "Job", "use its primary key, and load the row in the worker", False),
    (object(), "object", "use strings, numbers, booleans, None, lists and dicts", False),
    (Point, "type", "use strings, numbers, booleans, None, lists and dicts", False),
]


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (Job(worker="w"), "pass a dict with its primary key, and load the row in the worker"),
        (
            Point(1),
            "declare it as the worker's type, as in class MyWorker(Worker[MyArgs]), or pass a dict",
        ),
    ],
)
def test_the_error_about_an_object_says_how_to_pass_it(value: Any, advice: str) -> None:
    with pytest.raises(EncodingError) as caught:
        fields.args(value)
    assert str(caught.value) == f"args must be a dict, not {type(value).__name__}; {advice}"


@pytest.mark.parametrize(("value", "name", "advice", "typed"), ADVICE, ids=[item[1] for item in ADVICE])
def test_the_error_says_what_to_store_instead(value: Any, name: str, advice: str, typed: bool) -> None:
    typed_args = ", or declare typed args: Worker[Args]" if typed else ""
    with pytest.raises(EncodingError) as caught:
        fields.args({"a": [value]})
    assert str(caught.value) == f'args["a"][0] is not JSON: {name}; {advice}{typed_args}'
    with pytest.raises(EncodingError) as caught:
        encoding.json_value([value], "Record")
    assert str(caught.value) == f"Record[0] is not JSON: {name}; {advice}"
    with pytest.raises(EncodingError, match=f"^args must be a dict, not {name.rpartition('.')[2]}(;|$)"):
        fields.args(value)
    # After a change in place, it is not encoded without a check.
    assert encoding.dumps_unchecked({"a": value}) is None


# -- error texts -------------------------------------------------------------------------------


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_the_text_of_an_error_names_its_type_message_and_place() -> None:
    text = error_texts.error_text(raised(ValueError("out of tea")))
    assert text.endswith("ValueError: out of tea")
    assert "in raised" in text


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a\x00b\ud800c"),
        Unprintable(),
        ValueError("x" * 1_000_000),
        ExceptionGroup("g", [ValueError("1"), Unprintable()]),
        SystemExit(3),
        KeyboardInterrupt(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_text_of_any_error_can_be_stored(error: BaseException) -> None:
    text = error_texts.error_text(raised(error))
    assert text
    assert len(text) < error_texts.MAX_ERROR + 100
    assert encoding.string(text, "error") == text
    assert type(error).__name__ in text


def test_the_line_of_a_group_names_the_first_exception_in_it() -> None:
    lost = KeyError("order")
    group = ExceptionGroup("unhandled errors in a TaskGroup", [lost])
    line = "ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception): KeyError: 'order'"
    assert error_texts.error_line(group) == line
    nested = ExceptionGroup("outer", [ExceptionGroup("inner", [lost, ValueError("2")])])
    assert error_texts.error_line(nested) == "ExceptionGroup: outer (1 sub-exception): KeyError: 'order'"
    unknown = ExceptionGroup("g", [Unprintable()])
    assert (
        error_texts.error_line(unknown)
        == f"ExceptionGroup: g (1 sub-exception): Unprintable: {error_texts.UNPRINTABLE}"
    )


def test_the_text_of_an_error_with_endless_causes_can_be_stored() -> None:
    error: BaseException = ValueError("first")
    for number in range(3000):
        later = ValueError(str(number))
        later.__cause__ = error
        error = later
    assert "ValueError" in error_texts.error_text(error)


def test_a_long_text_keeps_both_ends() -> None:
    text = error_texts.sanitize("begin" + "x" * 100_000 + "end")
    assert text.startswith("begin")
    assert text.endswith("end")
    assert "characters left out" in text
    assert error_texts.sanitize("short") == "short"
    assert error_texts.sanitize("a\x00\ud800") == "a\ufffd?"


@pytest.mark.parametrize("padding", ["x", "é", "\ud83d\ude00"])
@pytest.mark.parametrize("number", [18446744073709551616, -9223372036854775809])
def test_a_long_integer_keeps_its_digits_in_a_large_document(padding: str, number: int) -> None:
    found = encoding.loads(f'{{"text": "{padding * 50_000}", "number": {number}}}')
    assert found["number"] == number
    assert type(found["number"]) is int
