"""Names and values as texts in a query: which of them have to be in quotes."""

import math
import re
from typing import Any

from oban import encoding

#: A key of a path, a value and a word, each without quotes.
PATH_KEY = re.compile(r'[^\s".:,]+')
BARE = re.compile(r'[^\s",]+')
WORD = re.compile(r'[^\s"]+')


def is_bare(text: str) -> bool:
    """Whether a value needs no quotes."""
    return BARE.fullmatch(text) is not None and text[0] not in "<>"


def word(text: str) -> str:
    """A word, in quotes unless it can only be read as a word."""
    plain = WORD.fullmatch(text) and ":" not in text and not text.startswith(("-", "args.", "meta."))
    return text if plain else quoted(text)


def path_key(text: str) -> str:
    """A key of a path, in quotes if it needs them."""
    return text if PATH_KEY.fullmatch(text) else quoted(text)


def quoted(text: str) -> str:
    """A text in quotes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def scalar(text: str) -> Any:
    """The JSON value that a text is; the text itself if it is none."""
    try:
        value = encoding.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, float) and not math.isfinite(value) else value
