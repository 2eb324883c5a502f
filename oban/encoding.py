"""JSON in and out: what is accepted, how large it may be, and how an error becomes text.

What is refused is what PostgreSQL's `jsonb`, SQLite's JSON functions or another language would
refuse or change silently: NUL characters, lone surrogates, NaN and infinities, integers beyond
64 bits, keys that are not text.
"""

import math
import traceback
from typing import Any

import orjson

from oban.errors import EncodingError

#: Largest `args`, `meta` or recorded value, in bytes of JSON.
MAX_BYTES = 4 * 1024 * 1024
#: Deepest nesting of lists and dicts.
MAX_DEPTH = 100
#: Longest error text that is kept, in characters.
MAX_ERROR = 8192

_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1


def dumps(value: Any) -> str:
    """JSON text of a value that `json_value` has accepted."""
    return orjson.dumps(value).decode()


def json_object(value: object, path: str) -> dict[str, Any]:
    """A deep copy of a dict of JSON values, ready to be stored.

    Raises `EncodingError`, naming the path, when the value is not a dict or holds anything that
    JSON cannot carry unchanged, and when its JSON is larger than `MAX_BYTES`.
    """
    if not isinstance(value, dict):
        raise EncodingError(path, f"must be a dict, not {type(value).__name__}")
    copy: dict[str, Any] = json_value(value, path)
    return copy


def json_value(value: object, path: str) -> Any:
    """A deep copy of any JSON value. Tuples become lists, enum members their plain value."""
    copy = _copy(value, path, MAX_DEPTH)
    if copy and (size := len(orjson.dumps(copy))) > MAX_BYTES:
        raise EncodingError(path, f"is {size:,} bytes of JSON; at most {MAX_BYTES:,} are stored")
    return copy


def _copy(value: object, path: str, depth: int) -> Any:
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return text(value, path)
    if isinstance(value, int):
        if not _MIN_INT <= value <= _MAX_INT:
            raise EncodingError(path, "is an integer of more than 64 bits; store it as text")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise EncodingError(path, f"is {value}, which JSON cannot hold")
        return float(value)
    if not isinstance(value, (dict, list, tuple)):
        raise EncodingError(path, f"is not JSON: {type(value).__name__}")
    if depth == 0:
        raise EncodingError(path, f"is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        copy = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise EncodingError(path, f"has a key that is not text: {key!r}")
            copy[text(key, f"{path}, in a key,")] = _copy(item, f'{path}["{key}"]', depth - 1)
        return copy
    return [_copy(item, f"{path}[{index}]", depth - 1) for index, item in enumerate(value)]


def text(value: str, path: str) -> str:
    """The plain `str` of a text that every database can store; raises `EncodingError` if none can."""
    if "\x00" in value:
        raise EncodingError(path, "holds a NUL character, which databases cannot store")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise EncodingError(path, "holds a lone surrogate, which is not valid text") from None
    return value if type(value) is str else str.__str__(value)


def storable(value: str, limit: int = MAX_ERROR) -> str:
    """The nearest text that can be stored: NUL and surrogates replaced, the middle cut out beyond `limit`."""
    if len(value) > limit:
        half = limit // 2
        value = f"{value[:half]}\n… {len(value) - 2 * half:,} characters left out …\n{value[-half:]}"
    return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def error_text(error: BaseException) -> str:
    """The traceback of an exception as text that can be stored, even if the exception cannot be printed."""
    try:
        lines = traceback.format_exception(error)
    except Exception:
        lines = traceback.format_tb(error.__traceback__)
        lines.append(f"{type(error).__qualname__}: <the exception could not be printed>")
    return storable("".join(lines).rstrip())
