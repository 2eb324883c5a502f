"""Texts, numbers and durations as pages show them, whatever a row contains."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

from oban import amounts

#: Control characters except for tabs and line breaks, marks that turn the direction of the text around them
#: or take no room, and halves of surrogate pairs, which cannot be sent.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


class Piece(NamedTuple):
    """A part of a text. `code` tells that it stands for a character that would not be seen."""

    text: str
    code: bool


def plain(value: Any) -> str:
    """A value of a row as text, whatever its type is."""
    if isinstance(value, str):
        return value
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def pieces(value: Any, limit: int | None = None) -> Iterator[Piece]:
    """Split a text into what is shown as it is and the codes of characters that would not be seen.

    With a limit, only so many characters of the text are used.
    """
    text = plain(value)[:limit]
    end = 0
    for found in _HIDDEN.finditer(text):
        if found.start() > end:
            yield Piece(text[end : found.start()], False)
        yield Piece(f"U+{ord(found[0]):04X}", True)
        end = found.end()
    if end < len(text):
        yield Piece(text[end:], False)


def visible(value: Any, limit: int | None = None) -> str:
    """A text for an attribute, in which codes stand for characters that would not be seen."""
    return "".join(f"[{piece.text}]" if piece.code else piece.text for piece in pieces(value, limit))


def number(value: float | None) -> str:
    """A number with separators between thousands; a dash for None."""
    return "–" if value is None else f"{value:,}"


def compact(value: float) -> str:
    """A number in at most five characters, such as `950`, `12.5k` and `3.2M`."""
    for unit, size in (("G", 1_000_000_000), ("M", 1_000_000), ("k", 1000)):
        # What would be rounded to 1000 of a unit is 1 of the next.
        if value >= size * 0.9995:
            short = value / size
            return f"{short:.0f}{unit}" if short >= 100 else f"{short:.1f}{unit}"
    return f"{value:,.0f}" if value == int(value) else f"{value:.1f}"


def duration(value: float | timedelta | None) -> str:
    """A duration, of seconds, such as `350 ms`, `1.2 s`, `2m05s` and `3d04h`; a dash for None."""
    if value is None:
        return "–"
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 59.95 else amounts.short_duration(seconds)
