"""JSON encoding and decoding.

JSON values are None, booleans, strings, numbers, lists, tuples and dicts, and instances of their subclasses,
such as a member of an `IntEnum` or a `StrEnum`, which are stored as the plain value. A value is refused if
PostgreSQL's `jsonb`, SQLite's JSON functions or another language would refuse it or silently change it: NUL
characters, lone surrogates, NaN, infinities, integers beyond 64 bits, and keys that are not strings.
"""

import json
import math
import re
import sys
from decimal import Decimal
from marshal import dumps as marshal_dumps
from typing import Any

import orjson

from oban import display, remedies
from oban.error_texts import sanitize
from oban.errors import EncodingError

#: The largest `args`, `meta` or recorded value, in bytes of JSON.
MAX_BYTES = 4 * 1024 * 1024
#: How deeply lists and dicts can be nested.
MAX_DEPTH = 100
#: The longest key in the path to a wrong value, in characters; the path has twice as many.
MAX_SHOWN = 100
_STRICT = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
_EMPTY: dict[str | bytes, Any] = {"{}": dict, b"{}": dict, "[]": list, b"[]": list}
#: So many digits may be an integer beyond 64 bits.
_LONG = 18
_LONG_NUMBER = re.compile(rf"[0-9]{{{_LONG}}}")
#: Characters from which on a text is searched as bytes with zeros for digits, which is ten times as fast.
_LARGE = 10_000
_ZEROS, _LONG_ZERO = bytes.maketrans(b"123456789", b"0" * 9), b"0" * _LONG
_MAX_FLOAT = int(sys.float_info.max)
_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1


def loads(text: str | bytes) -> Any:
    """Decode JSON, with integers of any size. Raises `ValueError` or `RecursionError`."""
    # Most jobs have mostly empty documents.
    if text in _EMPTY:
        return _EMPTY[text]()
    if isinstance(text, bytes):
        text = text.decode()
    # orjson turns integers beyond 64 bits into floats, and refuses some valid JSON.
    if not _may_have_long_number(text):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            pass
    return _decode(text)


def _may_have_long_number(text: str) -> bool:
    if len(text) < _LARGE:
        return _LONG_NUMBER.search(text) is not None
    # Half of a surrogate pair, which SQLite can have, is no digit.
    return _LONG_ZERO in text.encode(errors="surrogatepass").translate(_ZEROS)


def decode_column(text: str | bytes) -> Any:
    """Decode a stored document. If it cannot be, return an `Undecodable`: other rows must stay readable."""
    try:
        return loads(text)
    except (ValueError, RecursionError) as error:
        problem = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
        return Undecodable(sanitize(f"cannot be decoded: {problem}", 500))


class Undecodable:
    """Takes the place of a stored document that cannot be decoded; `problem` is the reason."""

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
    """A float if `jsonb` wrote one out as these digits, as it does with 1e22; else the integer."""
    if abs(value) < _MAX_FLOAT and Decimal(repr(float(value))) == value:
        return float(value)
    return value


def json_type(value: object) -> str:
    """The JSON type of a decoded value, with its article: "a string", "a number"."""
    if value is None:
        return "null"
    names = {bool: "a boolean", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


def dumps(value: Any) -> str:
    """Encode a value that `json_value` has accepted."""
    return orjson.dumps(value).decode()


def json_object(value: object, path: str) -> dict[str, Any]:
    """Check a dict of JSON values and copy it, as `json_value` does."""
    if not isinstance(value, dict):
        problem = f"must be a dict, not {type(value).__name__}{remedies.remedy_for_args(value)}"
        raise EncodingError(path, problem)
    return json_value(value, path) if value else {}


def json_value(value: object, path: str) -> Any:
    """Check a JSON value, and return a deep copy that can be stored in any database without a change.

    Tuples become lists, and instances of subclasses plain values. Raises `EncodingError`, with the path of
    the wrong part after `path`, if JSON cannot represent it, or if the value is too deep or too large.
    """
    encoded = _encoded(value)
    if encoded is not None:
        _check_size(encoded, path)
        text = encoded.decode()
        # This few brackets cannot be nested too deeply. NaN becomes null and so is not equal.
        if "\\u0000" not in text and text.count("{") + text.count("[") < MAX_DEPTH:
            copy = orjson.loads(text)
            if copy == value:
                return copy
    weight = [0]
    try:
        copy = _copy(value, MAX_DEPTH, weight)
    except _TypedOnly as error:
        # Meta and recorded values have no declared type.
        typed = ", or declare typed args: Worker[Args]" if path == "args" else ""
        raise EncodingError(path + error.field, error.problem + typed) from None
    except EncodingError as error:
        if len(error.field) > 2 * MAX_SHOWN:
            step, last = error.field[:MAX_SHOWN], error.field[-MAX_SHOWN:]
            error = type(error)(f"{step}…{last}", error.problem)
        raise error.within(path) from None
    # A character takes up to six bytes. Most values are too short to need measuring.
    if weight[0] * 6 > MAX_BYTES:
        _check_size(orjson.dumps(copy), path)
    return copy


def copied(value: Any) -> Any:
    """A deep copy of a decoded JSON value, which can be nested more deeply than Python can recurse."""
    if not isinstance(value, (dict, list)):
        return value
    copy = value.copy()
    parts: list[Any] = [copy]
    while parts:
        part = parts.pop()
        for key, item in part.items() if isinstance(part, dict) else enumerate(part):
            if isinstance(item, (dict, list)):
                part[key] = item.copy()
                parts.append(part[key])
    return copy


def _check_size(encoded: bytes, path: str) -> None:
    if len(encoded) > MAX_BYTES:
        raise EncodingError(path, f"is {len(encoded):,} bytes of JSON; at most {MAX_BYTES:,} are stored")


def dumps_unchecked(value: Any) -> str | None:
    """Encode values that have been checked, but may have been changed in place since.

    None if they may not be storable any more: then check each of them again.
    """
    encoded = _encoded(value)
    if encoded is None or len(encoded) > MAX_BYTES:
        return None
    try:
        # It refuses subclasses, enums and UUIDs, all of which orjson converts.
        marshal_dumps(value)
    except ValueError:
        return None
    text = encoded.decode()
    # orjson encodes NaN as null, and accepts NUL characters.
    return None if "null" in text or "\\u0000" in text else text


def encode_document(value: Any) -> str | None:
    """Encode one document as `dumps_unchecked` does; None also if it may be nested too deeply."""
    if not value and type(value) in (dict, list):
        return "[]" if type(value) is list else "{}"
    text = dumps_unchecked(value)
    return None if text is None or text.count("{") + text.count("[") >= MAX_DEPTH else text


class _TypedOnly(EncodingError):
    """A value that is not JSON, but that typed args would convert."""


def _encoded(value: Any) -> bytes | None:
    """The JSON of a value, or None if orjson cannot encode it."""
    try:
        return orjson.dumps(value, option=_STRICT)
    except TypeError:
        return None


def _copy(value: object, depth: int, weight: list[int]) -> Any:
    """A deep copy. The approximate number of characters of its JSON is added to `weight[0]`.

    The path in an `EncodingError` is put together on the way up.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        weight[0] += len(value)
        return string(value, "")
    if isinstance(value, int):
        if not _MIN_INT <= value <= _MAX_INT:
            if isinstance(number := _float_of(value), float):
                return number
            raise EncodingError("", "is an integer of more than 64 bits; store it as a string")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise EncodingError("", f"is {value}, which JSON cannot hold")
        return float(value)
    if not isinstance(value, (dict, list, tuple)):
        problem = f"is not JSON: {remedies.type_name(value)}; {remedies.remedy(value)}"
        raise (_TypedOnly if remedies.fits_typed_args(value) else EncodingError)("", problem)
    if depth == 0:
        raise EncodingError("", f"is nested more than {MAX_DEPTH} levels deep")
    weight[0] += 16 + 24 * len(value)
    copied: Any = {} if isinstance(value, dict) else []
    key: object = None
    try:
        if isinstance(value, dict):
            for key, item in value.items():
                if not isinstance(key, str):
                    raise EncodingError("", "is under a key that is not a string")
                name = string(key, "", "is under a key that ")
                weight[0] += len(name)
                copied[name] = _copy(item, depth - 1, weight)
        else:
            for key, item in enumerate(value):  # noqa: B007 - used in the path of an error
                copied.append(_copy(item, depth - 1, weight))
    except EncodingError as error:
        is_plain = isinstance(key, str) and len(key) <= MAX_SHOWN and key.isprintable()
        step = f'["{key}"]' if is_plain else f"[{display.shown(key, MAX_SHOWN)}]"
        raise error.within(step) from None
    return copied


def string(value: str, path: str, part: str = "") -> str:
    """Check that a string can be stored, and return it as a plain `str`. Raises `EncodingError`."""
    if "\x00" in value:
        raise EncodingError(path, f"{part}holds a NUL character, which databases cannot store")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise EncodingError(path, f"{part}holds a lone surrogate, which is not valid Unicode") from None
    # Of a subclass, such as an enum, only the string itself.
    return str.__str__(value)
