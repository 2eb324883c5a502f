"""The bodies and queries of requests: read, decoded and checked."""

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from oban import encoding
from oban.web.api import problems
from oban.web.api.problems import FieldError, Refusal

#: The largest body of a request, in bytes: a job has up to 4 MiB of args and of meta each.
MAX_BODY = 16 * 1024 * 1024
#: How deeply a body can be nested: args can be 100 levels deep.
MAX_DEPTH = 110


class Body(BaseModel):
    """The JSON body of a request. Other fields are refused, and values are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Query(BaseModel):
    """The query of a request. Other parameters are refused."""

    model_config = ConfigDict(extra="forbid")


B = TypeVar("B", bound=Body)
Q = TypeVar("Q", bound=Query)


def query(request: Request, type_: type[Q]) -> Q:
    """The query of a request. Only parameters that are lists can be repeated. Raises `Refusal`."""
    values: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        field = type_.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is list:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise Refusal.of_field(name[:100], "it is repeated")
        else:
            values[name] = value
    try:
        return type_.model_validate(values)
    except ValidationError as error:
        raise problems.of_validation(error) from None


async def body(request: Request, type_: type[B]) -> B:
    """The body of a request. Raises `Refusal`."""
    value = decode(await _read(request))
    try:
        return type_.model_validate(value)
    except ValidationError as error:
        raise problems.of_validation(error) from None


def check_type(request: Request) -> None:
    """Raise `Refusal` unless a request says that its body is JSON, which no form of another site can."""
    kind = request.headers.get("content-type", "").partition(";")[0]
    if kind.strip().lower() != "application/json":
        detail = "The body must be JSON, with Content-Type: application/json."
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)


async def _read(request: Request) -> bytes:
    too_large = Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {MAX_BODY // 1024 // 1024} MiB."
    )
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and len(length) < 20 and int(length) > MAX_BODY:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            raise too_large
        parts.append(part)
    return b"".join(parts)


def decode(text: bytes) -> Any:
    """Decode JSON, without duplicate keys, NaN and more levels than a job can have. Raises `Refusal`."""
    try:
        value = _decoder.decode(text.decode())
    except UnicodeDecodeError:
        raise _malformed("it is not UTF-8") from None
    except RecursionError:
        raise _malformed("it is nested too deeply") from None
    except _Duplicate as error:
        name = error.args[0]
        raise Refusal(
            HTTPStatus.BAD_REQUEST,
            f"The key {encoding.dumps(name)} is repeated.",
            [FieldError(field=name, detail="it is repeated")],
        ) from None
    except ValueError as error:
        raise _malformed(str(error)) from None
    if _depth(value) > MAX_DEPTH:
        raise _malformed("it is nested too deeply")
    return value


def _malformed(reason: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, f"The body cannot be read as JSON: {reason}.")


class _Duplicate(Exception):
    """An object has the same key twice."""


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Duplicate(name.encode("utf-8", "backslashreplace").decode()[:100])
            seen.add(name)
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{digits[:40]} is out of range")
    return value


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite)


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += [item for item in each.values() if isinstance(item, (dict, list))]
            elif isinstance(each, list):
                inner += [item for item in each if isinstance(item, (dict, list))]
        level = inner
    return depth
