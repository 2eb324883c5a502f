"""The messages between a node and its child processes: JSON, each preceded by a mark and its length.

The node sends its main module first. For each run it sends `{"number", "job", "module", "name",
"sure_until", "max_lines", "started_at", "context"}`, of which the last one is the context of a trace or null,
and `{"cancelled": number}` if the job is cancelled meanwhile. The child answers `{"number", "begun"}`, then
`{"number", "progress", "lines"}` as often as the job reports something, and in the end `{"number",
"outcome"}`; or `{"number", "unsure"}` without having begun, if it is later than `sure_until`. The number
tells a run from the one before it in the same child.
"""

import json
from datetime import datetime
from struct import Struct
from typing import Any

import orjson

from oban import encoding, encryption
from oban.models import Job
from oban.types import STATE_BY_VALUE, UTCDateTime

#: Tells a message from what a job has written to the connection by mistake.
_MARK = b"oban"
_HEADER = Struct("!4sI")
HEADER_SIZE = _HEADER.size

_COLUMNS = [column.key for column in Job.__table__.c]
_TIMES = {column.key for column in Job.__table__.c if isinstance(column.type, UTCDateTime)}


def pack(message: dict[str, Any]) -> bytes:
    """The bytes to send for a message, its header included."""
    try:
        data = orjson.dumps(message)
    except TypeError:
        # orjson refuses integers of more than 64 bits and deep nesting, which databases store.
        data = json.dumps(message).encode()
    return _HEADER.pack(_MARK, len(data)) + data


def body_size(header: bytes | bytearray) -> int:
    """The number of bytes that follow a header. Raises `ValueError` for what is not a header."""
    mark, size = _HEADER.unpack_from(header)
    if mark != _MARK:
        raise ValueError("not a message")
    return int(size)


def unpack(data: bytes) -> dict[str, Any]:
    """The message in the bytes after the header."""
    message: dict[str, Any] = encoding.loads(data)
    return message


def encode_job(job: Job) -> list[Any]:
    """All columns of a job as JSON values. Encrypted args are decrypted in the child process."""
    values = job.__dict__
    if encryption.is_used:
        values = {**values}
        encryption.seal_values(values)
    return [_json_value(values[key]) for key in _COLUMNS]


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    # Undecodable args and meta were refused before. No worker needs the other columns, such as errors, or a
    # unique key, which SQLite stores as bytes if another program writes them.
    return None if isinstance(value, (encoding.Undecodable, bytes)) else value


def decode_job(values: list[Any]) -> Job:
    """The detached job that `encode_job` was called with."""
    columns = dict(zip(_COLUMNS, values, strict=True))
    for key in _TIMES:
        if columns[key] is not None:
            columns[key] = datetime.fromisoformat(columns[key])
    columns["state"] = STATE_BY_VALUE.get(columns["state"])
    return Job._from_row(columns.values())
