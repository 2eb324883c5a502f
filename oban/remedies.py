"""What to do about a value that is not JSON: the advice in an `EncodingError`."""

import builtins
from collections.abc import Iterable, Mapping, Set
from dataclasses import is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from pathlib import PurePath
from uuid import UUID

#: By type, an expression that makes a JSON value of `value`, which typed args would do by themselves.
_CONVERSIONS: tuple[tuple[tuple[type, ...], str], ...] = (
    # Before the others: a member can be an instance of them as well.
    ((Enum,), "value.value"),
    ((UUID, Decimal, PurePath, IPv4Address, IPv6Address), "str(value)"),
    ((date, time), "value.isoformat()"),
    ((timedelta,), "value.total_seconds()"),
    ((bytes, bytearray), "value.decode(), or base64 for binary data"),
    ((Set,), "list(value)"),
)


def type_name(value: object) -> str:
    """The name of a value's type, with its module if a builtin type has the same name, as `numpy.bool`."""
    cls = type(value)
    is_ambiguous = hasattr(builtins, cls.__name__) and cls.__module__ != "builtins"
    return f"{cls.__module__}.{cls.__name__}" if is_ambiguous else cls.__name__


def fits_typed_args(value: object) -> bool:
    """Whether a field of typed args can be of this type."""
    return not _is_mapped(value) and (_conversion(value) is not None or _is_model(value))


def remedy(value: object) -> str:
    """What to store instead of a value that is not JSON."""
    if _is_mapped(value):
        return "use its primary key, and load the row in the worker"
    if conversion := _conversion(value):
        return f"use {conversion}"
    # Of the type: a mock has any attribute that it is asked for.
    if hasattr(type(value), "model_dump"):
        return 'use value.model_dump(mode="json")'
    if is_dataclass(value) and not isinstance(value, type):
        return "use dataclasses.asdict(value)"
    # An array or a scalar of numpy, or what looks like one.
    if hasattr(type(value), "tolist"):
        return "use value.tolist()"
    if isinstance(value, Mapping):
        return "use dict(value)"
    if isinstance(value, Iterable) and not isinstance(value, type):
        return "use list(value)"
    return "use strings, numbers, booleans, None, lists and dicts"


def remedy_for_args(value: object) -> str:
    """What to pass instead of an object that is not a dict, if it is clear what is in it; else nothing."""
    if _is_mapped(value):
        return "; pass a dict with its primary key, and load the row in the worker"
    if _is_model(value):
        return "; declare it as the worker's type, as in class MyWorker(Worker[MyArgs]), or pass a dict"
    return ""


def _conversion(value: object) -> str | None:
    return next((text for types, text in _CONVERSIONS if isinstance(value, types)), None)


def _is_mapped(value: object) -> bool:
    """Whether a value is a row of a model of SQLAlchemy."""
    return hasattr(type(value), "__mapper__")


def _is_model(value: object) -> bool:
    return hasattr(type(value), "model_dump") or (is_dataclass(value) and not isinstance(value, type))
