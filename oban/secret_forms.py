"""The forms of secret values in texts: as they are, escaped, quoted or formatted; and where they are."""

import contextlib
import json
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable
from typing import Any
from urllib.parse import quote, quote_plus

#: Texts of this length are found inside of words, too. Shorter ones, down to two characters, are found where
#: they stand alone. A single character is not: it would be found all over a traceback.
LEAST = 4
#: Secret texts that are longer than this are looked for in their plain, `repr` and JSON forms only.
_LONG = 65_536
#: If there are more values than this, texts are looked for as they are and escaped once.
_MANY = 1_000
#: How many characters of a form are looked up. Those that begin alike are compared one by one.
_LOOKED_UP = 64
#: Forms that are longer than this are searched for one by one. There are few: args have 4 MiB.
_HUGE = 16_384
#: How much of a secret is looked for before and after a mark that says that a text was cut there.
_LONGEST_PART = 16_384
#: What escapes leave alone, in all forms.
_PLAIN = re.compile(r"[A-Za-z0-9_.~-]+")
#: A place where a form of two or three characters can stand alone.
_ALONE = re.compile(r"(?<!\w)(?=(?s:..))")

#: From where to where a form is in a text.
Place = tuple[int, int]


class Forms:
    """The forms of values, which are found in a time that grows with the text, not with their number."""

    def __init__(self, values: Collection[Any]) -> None:
        is_many = len(values) > _MANY
        forms = {form for value in values for form in _forms_of(value, is_many)}
        self._short = {form for form in forms if 1 < len(form) < LEAST}
        self._long = [form for form in forms if len(form) >= LEAST]
        self._huge = [form for form in self._long if len(form) > _HUGE]
        # By its first four characters, the lengths of what is looked up; by that, the longest forms first.
        self._lengths: dict[str, tuple[int, ...]] = {}
        self._by_start: dict[str, list[str]] = {}
        lengths: dict[str, set[int]] = {}
        for form in sorted(self._long, key=len, reverse=True):
            if len(form) <= _HUGE:
                start = form[:_LOOKED_UP]
                self._by_start.setdefault(start, []).append(form)
                lengths.setdefault(form[:LEAST], set()).add(len(start))
        self._lengths = {start: tuple(sorted(found, reverse=True)) for start, found in lengths.items()}
        self._starts: _Starts | None = None
        self._ends: _Starts | None = None

    def places(self, text: str) -> list[Place]:
        """Where forms are in a text. Overlapping ones are one place."""
        found: list[Place] = []
        lengths_at, at = self._lengths.get, 0
        for at in range(len(text) - LEAST + 1) if self._lengths else ():
            lengths = lengths_at(text[at : at + LEAST])
            if lengths is not None and (end := self._end(text, at, lengths)):
                found.append((at, end))
        for form in self._huge:
            at = text.find(form)
            while at != -1:
                found.append((at, at + len(form)))
                at = text.find(form, at + len(form))
        for match in _ALONE.finditer(text) if self._short else ():
            at = match.start()
            for end in (at + 3, at + 2):
                if text[at:end] in self._short and not _is_word(text[end : end + 1]):
                    found.append((at, end))
                    break
        return _merged(found)

    def _end(self, text: str, at: int, lengths: tuple[int, ...]) -> int:
        for length in lengths:
            for form in self._by_start.get(text[at : at + length], ()):
                if text.startswith(form, at):
                    return at + len(form)
        return 0

    def length_at_end(self, text: str) -> int:
        """How many characters at the end of a text are the beginning of a form; 0 if they are too few."""
        if self._starts is None:
            self._starts = _Starts(self._long)
        return self._starts.length_at_end(text[-_LONGEST_PART:])

    def length_at_start(self, text: str, start: int, end: int) -> int:
        """How many characters of a text from `start`, up to `end`, are the end of a form; 0 if too few."""
        if self._ends is None:
            self._ends = _Starts(form[::-1] for form in self._long)
        return self._ends.length_at_end(text[start : min(end, start + _LONGEST_PART)][::-1])


class _Starts:
    """Finds the beginning of a form at the end of a text."""

    def __init__(self, forms: Iterable[str]) -> None:
        self._sorted = sorted(forms)
        self._first = {form[:LEAST] for form in self._sorted}

    def length_at_end(self, text: str) -> int:
        for at in range(len(text) - LEAST + 1):
            if text[at : at + LEAST] in self._first:
                start = text[at:]
                # Sorted texts that begin alike follow each other.
                nearest = bisect_left(self._sorted, start)
                if nearest < len(self._sorted) and self._sorted[nearest].startswith(start):
                    return len(start)
        return 0


def _merged(places: list[Place]) -> list[Place]:
    merged: list[Place] = []
    for start, end in sorted(places):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _forms_of(value: Any, is_many: bool) -> set[str]:
    """How a text or a number can be written."""
    if not isinstance(value, str):
        return _forms_of_number(value, is_many)
    if _PLAIN.fullmatch(value):
        return {value}
    forms: set[str] = set()
    # Applications strip what they are sent, and tracebacks indent each line of a message.
    texts = {value, value.strip(), *(line.strip() for line in value.splitlines())}
    if not value.isascii():
        texts |= {unicodedata.normalize(form, text) for form in ("NFC", "NFD") for text in texts}
    for text in texts:
        if len(text.strip()) > 1:
            forms |= {text} if _PLAIN.fullmatch(text) else _escaped(text, is_many)
    return forms


def _escaped(text: str, is_many: bool) -> set[str]:
    forms = {text}
    # An escaped text can be part of another one, such as JSON in the `repr` of a string.
    for _ in range(1 if is_many or len(text) > _LONG else 2):
        forms |= {escape(form) for form in forms for escape in _ESCAPES}
    if not is_many and len(text) <= _LONG:
        with contextlib.suppress(UnicodeEncodeError):
            quoted = {quote(text), quote(text, safe=""), quote_plus(text)}
            forms |= quoted | {re.sub(r"%..", lambda match: match[0].lower(), each) for each in quoted}
            forms.add(repr(text.encode())[2:-1])
    return forms


_ESCAPES: tuple[Callable[[str], str], ...] = (
    lambda text: repr(text)[1:-1],
    lambda text: ascii(text)[1:-1],
    lambda text: repr(f"{text}'\"")[1:-4],
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
)


def _forms_of_number(value: float, is_many: bool) -> set[str]:
    shown = str(value)
    if len(shown) == 1:
        return set()
    forms = {shown}
    if abs(value) >= 1000:
        forms.add(f"{value:,}")
    if is_many:
        return forms
    forms |= {json.dumps(value), f"{value:_}"}
    if abs(value) < 1e15:
        forms |= {f"{value:.2f}", f"{value:,.2f}", f"{value:g}"}
        if value == int(value):
            forms |= {str(int(value)), f"{int(value):,}"}
    return forms
