"""Cursors: where the next page of a list begins, or the next batch of a change."""

import base64
import binascii
import hashlib
from typing import Any

import orjson

from oban.repository.selection import MAX_ID
from oban.web.api.problems import Refusal

_DIGEST = 12
#: A window of ids can begin before the first id.
WIDEST = 10**6


def make(about: Any, position: Any) -> str:
    """A cursor.

    Args:
        about: What the list or the change is about, such as the filter and the order: a JSON value.
        position: The end of this page, a JSON value.
    """
    return base64.urlsafe_b64encode(orjson.dumps([_digest(about), position])).decode().rstrip("=")


def read(about: Any, cursor: str) -> Any:
    """The position of a cursor. Raises `Refusal` if it is no cursor, or one of another filter or order."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        found = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        digest, position = found
    except (binascii.Error, ValueError, TypeError):
        raise Refusal.of_field("cursor", "it is not a cursor") from None
    if digest != _digest(about):
        raise Refusal.of_field("cursor", "it belongs to another filter, order or action")
    return position


def job_id(position: Any) -> int:
    """The position of a cursor as the id of a job. Raises `Refusal` if it is none."""
    if type(position) is not int or not -WIDEST <= position <= MAX_ID:
        raise Refusal.of_field("cursor", "it is not a cursor")
    return position


def _digest(about: Any) -> str:
    encoded = orjson.dumps(about, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(encoded).hexdigest()[:_DIGEST]
