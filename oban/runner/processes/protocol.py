"""What a node and its child processes say to each other: JSON, each message after its length."""

import json
from datetime import datetime
from struct import Struct
from typing import Any

import orjson

from oban import encoding
from oban.models import Job
from oban.types import STATE_BY_VALUE, UTCDateTime

HEADER = Struct("!I")

_COLUMNS = [column.key for column in Job.__table__.c]
_TIMES = {column.key for column in Job.__table__.c if isinstance(column.type, UTCDateTime)}


def pack(message: dict[str, Any]) -> bytes:
    """A message as it is sent."""
    try:
        data = orjson.dumps(message)
    except TypeError:
        # Integers of more than 64 bits, or many levels: databases store these.
        data = json.dumps(message).encode()
    return HEADER.pack(len(data)) + data


def unpack(data: bytes) -> dict[str, Any]:
    """The message of what follows the length."""
    message: dict[str, Any] = encoding.loads(data)
    return message


def row(job: Job) -> list[Any]:
    """All columns of a job as JSON values."""
    return [_plain(job.__dict__[key]) for key in _COLUMNS]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    # Of the errors, for instance: of what a worker must have, there is none by now.
    return None if isinstance(value, encoding.Undecodable) else value


def job_of(row: list[Any]) -> Job:
    """The detached job of what `row` gave."""
    values = dict(zip(_COLUMNS, row, strict=True))
    for key in _TIMES:
        if values[key] is not None:
            values[key] = datetime.fromisoformat(values[key])
    values["state"] = STATE_BY_VALUE.get(values["state"])
    return Job._from_row(values.values())
