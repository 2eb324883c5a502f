"""JSON in and out: what is accepted, how large it may be, and how an error becomes text.

What is refused is what PostgreSQL's `jsonb`, SQLite's JSON functions or another language would
refuse or change silently: NUL characters, lone surrogates, NaN and infinities, integers beyond
64 bits, keys that are not text.
"""

import json
import math
import re
import sys
import traceback
from decimal import Decimal
from typing import Any

import orjson

from oban.errors import EncodingError

#: Largest `args`, `meta` or recorded value, in bytes of JSON.
MAX_BYTES = 4 * 1024 * 1024
#: Deepest nesting of lists and dicts.
MAX_DEPTH = 100
#: Largest error text that is kept, in bytes of JSON.
MAX_ERROR = 8192

_STRICT = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
_EMPTY: dict[str | bytes, Any] = {"{}": dict, b"{}": dict, "[]": list, b"[]": list}
_LONG_NUMBER = re.compile(r"\d{18}")
_MAX_FLOAT = int(sys.float_info.max)
_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1


def loads(text: str | bytes) -> Any:
    """The value of a JSON text, with integers of any size."""
    # Most documents of most jobs are empty.
    if text in _EMPTY:
        return _EMPTY[text]()
    if isinstance(text, bytes):
        text = text.decode()
    # The fast decoder makes floats of integers that do not fit 64 bits, and refuses more than JSON does.
    if _LONG_NUMBER.search(text) is None:
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            pass
    return _decode(text)


def decode_column(text: str | bytes) -> Any:
    """The value of a stored JSON text, or an `Undecodable`: one bad row must not cost the others theirs."""
    try:
        return loads(text)
    # ValueError: no JSON, or a number out of reach.
    except (ValueError, RecursionError) as error:
        problem = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
        return Undecodable(sanitize(f"cannot be decoded: {problem}", 500))


class Undecodable:
    """Stands for a document of the database that Python cannot decode; `problem` says why."""

    __slots__ = ("problem",)

    def __init__(self, problem: str) -> None:
        self.problem: str = problem

    def __repr__(self) -> str:
        return f"<{self.problem}>"


def _integer(digits: str) -> int | float:
    value = int(digits)
    if _MIN_INT <= value <= _MAX_INT:
        return value
    if abs(value) > _MAX_FLOAT:
        raise ValueError(f"an integer of {len(digits)} digits")
    return _float_of(value)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is out of range")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_int=_integer, parse_float=_finite, parse_constant=_no_constant).decode


def _float_of(value: int) -> int | float:
    """The float that `jsonb` has spelt out, as it does with 1e22; any other integer as it is."""
    if abs(value) < _MAX_FLOAT and Decimal(repr(float(value))) == value:
        return float(value)
    return value


def json_type(value: object) -> str:
    """What JSON calls a value that `loads` gives."""
    names = {"NoneType": "null", "bool": "a boolean", "str": "text", "list": "a list", "dict": "an object"}
    return names.get(type(value).__name__, "a number")


def dumps(value: Any) -> str:
    """JSON text of a value that `json_value` has accepted."""
    return orjson.dumps(value).decode()


def json_object(value: object, path: str) -> dict[str, Any]:
    """A deep copy of a dict of JSON values, ready to be stored.

    Raises `EncodingError`, naming the path, when the value is not a dict or holds anything that
    JSON cannot carry unchanged, and when its JSON is larger than `MAX_BYTES`.
    """
    if value == {}:
        return {}
    if not isinstance(value, dict):
        raise EncodingError(path, f"must be a dict, not {type(value).__name__}")
    copy: dict[str, Any] = json_value(value, path)
    return copy


def json_value(value: object, path: str) -> Any:
    """A deep copy of any JSON value. Tuples become lists, enum members their plain value."""
    encoded = _encoded(value)
    if encoded is not None:
        _check_size(encoded, path)
        text = encoded.decode()
        # Without brackets, no depth. What comes back unchanged, as NaN does not, is JSON.
        if "\\u0000" not in text and text.count("{") + text.count("[") < MAX_DEPTH:
            copy = orjson.loads(text)
            if copy == value:
                return copy
    weight = [0]
    try:
        copy = _copy(value, MAX_DEPTH, weight)
    except _Refused as refused:
        raise EncodingError(path + refused.path, refused.problem) from None
    # A character takes six bytes at most, so that most values need not be encoded to be measured.
    if weight[0] * 6 > MAX_BYTES:
        _check_size(orjson.dumps(copy), path)
    return copy


def _check_size(encoded: bytes, path: str) -> None:
    if len(encoded) > MAX_BYTES:
        raise EncodingError(path, f"is {len(encoded):,} bytes of JSON; at most {MAX_BYTES:,} are stored")


def dumps_unchecked(value: Any) -> str | None:
    """JSON text of values that may have been changed in place since they were checked.

    None if that, or their size, has to be looked at: check each of them again then.
    """
    encoded = _encoded(value)
    if encoded is None or len(encoded) > MAX_BYTES:
        return None
    text = encoded.decode()
    # Where orjson lets NaN and NUL through, it leaves these traces.
    return None if "null" in text or "\\u0000" in text else text


def _encoded(value: Any) -> bytes | None:
    """JSON of a value as far as orjson knows it."""
    try:
        return orjson.dumps(value, option=_STRICT)
    except TypeError:
        return None


class _Refused(Exception):
    """Carries what is wrong up to the top; the path is put together on the way, only if needed."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = path


def _copy(value: object, depth: int, weight: list[int]) -> Any:
    """`value` as JSON values of its own; adds up in `weight` about how many characters they take."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        if problem := _fault(value):
            raise _Refused(problem)
        weight[0] += len(value)
        return value if type(value) is str else str.__str__(value)
    if isinstance(value, int):
        if not _MIN_INT <= value <= _MAX_INT:
            if isinstance(number := _float_of(value), float):
                return number
            raise _Refused("is an integer of more than 64 bits; store it as text")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _Refused(f"is {value}, which JSON cannot hold")
        return float(value)
    if not isinstance(value, (dict, list, tuple)):
        raise _Refused(f"is not JSON: {type(value).__name__}")
    if depth == 0:
        raise _Refused(f"is nested more than {MAX_DEPTH} levels deep")
    weight[0] += 16 + 24 * len(value)
    copied: Any = {} if isinstance(value, dict) else []
    key: object = None
    try:
        if isinstance(value, dict):
            for key, item in value.items():
                name = _checked_key(key)
                weight[0] += len(name)
                copied[name] = _copy(item, depth - 1, weight)
        else:
            for key, item in enumerate(value):  # noqa: B007 - the path of what is refused
                copied.append(_copy(item, depth - 1, weight))
    except _Refused as refused:
        plain = isinstance(key, str) and key.isprintable()
        shown = f'["{key}"]' if plain else f"[{key!r}]"
        raise _Refused(refused.problem, shown + refused.path) from None
    return copied


def _checked_key(key: object) -> str:
    if not isinstance(key, str):
        raise _Refused("is under a key that is not text")
    if problem := _fault(key):
        raise _Refused(f"is under a key that {problem}")
    return key if type(key) is str else str.__str__(key)


def text(value: str, path: str) -> str:
    """The plain `str` of a text that every database can store; raises `EncodingError` if none can."""
    if problem := _fault(value):
        raise EncodingError(path, problem)
    return value if type(value) is str else str.__str__(value)


def _fault(value: str) -> str | None:
    """What makes a text one that cannot be stored, if anything does."""
    if "\x00" in value:
        return "holds a NUL character, which databases cannot store"
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return "holds a lone surrogate, which is not valid text"
    return None


def sanitize(value: str, limit: int = MAX_ERROR) -> str:
    """The nearest text that can be stored: NUL and surrogates replaced.

    If its JSON takes more than `limit` bytes, the middle is cut out.
    """
    if len(value) <= limit:
        text = _without_faults(value)
        if len(orjson.dumps(text)) <= limit:
            return text
    # No character takes less than a byte.
    head, tail = (_without_faults(part).encode() for part in (value[:limit], value[-limit:]))
    room = limit - 64
    while True:
        half = room // 2
        first, last = head[:half].decode(errors="ignore"), tail[-half:].decode(errors="ignore")
        left_out = len(value) - len(first) - len(last)
        text = f"{first}\n… {left_out:,} characters left out …\n{last}"
        size = len(orjson.dumps(text))
        if left_out > 0 and size <= limit:
            return text
        # Quotes take two bytes in JSON, control characters six.
        room = min(room * limit // size, room - room // 16 - 1)


def log_safe(value: object, limit: int = 255) -> str:
    """A text of a row as it may stand in a log: on one line, without control characters, cut at `limit`."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= limit else f"{text[:limit]}…"


def _without_faults(value: str) -> str:
    return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def error_text(error: BaseException) -> str:
    """The traceback of an exception as text that can be stored, whatever the exception is. Never raises."""
    try:
        return sanitize("".join(traceback.format_exception(error)).rstrip())
    except BaseException:
        # An exception may do anything when it is asked for its text; its class may, too, for its name.
        name = type.__dict__["__qualname__"].__get__(type(error))
        lines = traceback.format_tb(error.__traceback__)
        return sanitize("".join([*lines, f"{name}: <the exception could not be printed>"]))
