"""JSON documents as a page shows them: lines, of which containers can be folded, bounded in size."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: Values and characters of a document that are shown.
VALUES, CHARACTERS = 1000, 50_000
#: Characters of one text that are shown.
TEXT = 5_000
#: Containers in each other that can be folded; what is deeper is shown in one line.
DEPTH = 24
#: Containers with at most so many values are open at first, as are those of the first two levels.
SMALL = 12


class Line(NamedTuple):
    """A line of a document.

    Attributes:
        part: "value", or the "start" or "end" of a container.
        kind: "string", "number", "word" (true, false, null), "object" or "array"; "rest" for the end.
        text: The value; for a container its bracket.
        key: The key in an object, or None.
        size: How many values a container has.
        open: Whether a container is open at first.
        path: Numbers that tell the place of a container in the document.
    """

    part: str
    kind: str
    text: str = ""
    key: str | None = None
    size: int = 0
    open: bool = True
    path: str = ""


@dataclass(slots=True)
class Document:
    """The lines of a document that are shown.

    Attributes:
        lines: The lines.
        cut: Whether something is not shown.
        source: The text of the whole document for copying, or None where something is not shown.
    """

    lines: list[Line] = field(default_factory=list)
    cut: bool = False
    source: str | None = None
    _values: int = 0
    _characters: int = 0

    def is_full(self) -> bool:
        return self._values >= VALUES or self._characters >= CHARACTERS

    def add(self, line: Line) -> None:
        self._values += 1
        self._characters += len(line.text) + len(line.key or "")
        self.lines.append(line)


def document(value: Any) -> Document:
    """Make the lines of a JSON value, or of any value that a broken row contains."""
    made = Document()
    _add(made, value, None, "0", 0)
    if not made.cut:
        made.source = _dumped(value, indent=2)
    return made


def _add(made: Document, value: Any, key: str | None, path: str, depth: int) -> None:
    if key is not None and len(key) > TEXT:
        made.cut, key = True, f"{key[:TEXT]}…"
    if isinstance(value, (Mapping, list, tuple)) and value and depth < DEPTH:
        kind, start, end = ("object", "{", "}") if isinstance(value, Mapping) else ("array", "[", "]")
        is_open = depth < 2 or len(value) <= SMALL
        made.add(Line("start", kind, start, key, len(value), is_open, path))
        for index, (name, item) in enumerate(_items(value)):
            if made.is_full():
                made.cut = True
                made.lines.append(Line("value", "rest", f"{len(value) - index:,} more"))
                break
            _add(made, item, name, f"{path}.{index}", depth + 1)
        made.lines.append(Line("end", kind, end))
        return
    kind, text = _scalar(value)
    if len(text) > TEXT:
        made.cut, text = True, f"{text[:TEXT]}… ({len(text) - TEXT:,} more characters)"
    made.add(Line("value", kind, text, key))


def _items(value: Any) -> Iterator[tuple[str | None, Any]]:
    if isinstance(value, Mapping):
        return ((str(name), item) for name, item in value.items())
    return ((None, item) for item in value)


def _scalar(value: Any) -> tuple[str, str]:
    if value is None or isinstance(value, bool):
        return "word", _dumped(value)
    if isinstance(value, (int, float)):
        return "number", _dumped(value)
    return ("string" if isinstance(value, str) else "word"), _dumped(value)


def _dumped(value: Any, indent: int | None = None) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, indent=indent, default=str)
    # Nested too deeply, contains itself, or is an integer of too many digits.
    except (RecursionError, ValueError, TypeError):
        return "cannot be shown"
