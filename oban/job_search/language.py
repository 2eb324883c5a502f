"""The query language: a text such as `state:available queue:mail args.customer.id:7 -tag:test report`.

A query consists of terms with spaces between them, all of which apply. A term is a filter, `KEY:VALUE`, or a
word. Commas separate values of which any applies, a `-` before a term negates it, and double quotes surround
text with spaces or other special characters, in which a backslash stands before a quote or a backslash.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from typing import Any

from oban import display, durations, encoding, suggestions
from oban.errors import EncodingError, InvalidArgument
from oban.job_search import quoting
from oban.job_search.terms import (
    DOCUMENTS,
    KEYS,
    NUMBERS,
    PATTERNS,
    STATES,
    TIMES,
    Age,
    Anything,
    Pattern,
    Term,
    Value,
)

#: The longest query, in characters, how many terms it can have, and how many values a term can have.
MAX_LENGTH, MAX_TERMS, MAX_VALUES = 2_000, 30, 200
#: How many keys a path can have.
MAX_PATH = 16


def parse(text: str) -> tuple[Term, ...]:
    """The terms of a text.

    Raises:
        InvalidArgument: The text is not a query. The message says what is wrong with which part, and where
            it can, what was probably meant.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidArgument(f"the search has {len(text):,} characters; at most {MAX_LENGTH:,} are allowed")
    try:
        encoding.string(text, "the search")
    except EncodingError as error:
        raise InvalidArgument(str(error)) from None
    terms = tuple(_Reader(text).terms())
    if len(terms) > MAX_TERMS:
        raise InvalidArgument(f"the search has {len(terms)} terms; at most {MAX_TERMS} are allowed")
    return terms


def written(terms: Iterable[Term]) -> str:
    """Terms as text, which `parse` reads as the same terms."""
    return " ".join(map(str, terms))


_SPACE = re.compile(r"\s+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_NAME = re.compile(r"[A-Za-z_]+(?=[:.])")
_OPERATOR = re.compile(r"[<>]=?")
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_AGE = re.compile(r"\d.*[a-z]", re.ASCII | re.DOTALL)


class _Reader:
    """Reads a text from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def terms(self) -> Iterator[Term]:
        self._take(_SPACE)
        while self._at < len(self._text):
            yield self._term()
            if self._at < len(self._text) and self._take(_SPACE) is None:
                raise InvalidArgument(f"a space is missing before {self._rest()}")

    def _term(self) -> Term:
        negated = self._next("-")
        begin = self._at
        if (quoted := self._quoted()) is not None:
            if not quoted.strip():
                raise InvalidArgument('"" searches for nothing: leave it out')
            return Term("", (quoted,), negated=negated)
        if (key := self._take(_NAME)) is not None and (term := self._filter(key, negated)) is not None:
            return term
        self._at = begin
        word = self._take(quoting.WORD)
        if word is None:
            raise InvalidArgument("a word or a filter is missing after the -")
        if ":" in word:
            raise _unknown(word.partition(":")[0], word)
        return Term("", (word,), negated=negated)

    def _filter(self, key: str, negated: bool) -> Term | None:
        path: list[str] = []
        if key not in DOCUMENTS and self._text[self._at] == ".":
            # A word, such as `app.workers.Report`.
            return None
        while self._next("."):
            part = self._quoted()
            part = self._take(quoting.PATH_KEY) if part is None else part
            if part is None:
                raise InvalidArgument(f"a key is missing in the path after {key}.{'.'.join(path)}")
            path.append(part)
        if not self._next(":"):
            raise InvalidArgument(f"{key}.{'.'.join(path)} has no value, such as {key}.customer.id:7")
        if key not in KEYS:
            word = self._take(quoting.WORD)
            raise _unknown(key, f"{key}:{word}" if word else "")
        if key in DOCUMENTS and not path:
            raise InvalidArgument(f"{key} needs a path, such as {key}.customer.id:7")
        if len(path) > MAX_PATH:
            raise InvalidArgument(f"the path of {key} has {len(path)} keys; at most {MAX_PATH} are allowed")
        operator: Any = self._take(_OPERATOR) or ""
        if operator and key not in (*NUMBERS, *TIMES):
            raise InvalidArgument(f"{key} cannot be compared by {operator}; leave it out, or quote the value")
        values = [self._value(key, operator)]
        while self._next(","):
            values.append(self._value(key, operator))
        if len(values) > 1 and operator:
            raise InvalidArgument(f"{key}:{operator} takes one value, not {len(values)}")
        if len(values) > MAX_VALUES:
            raise InvalidArgument(f"{key} has {len(values)} values; at most {MAX_VALUES} are allowed")
        return Term(key, tuple(values), tuple(path), operator, negated)

    def _value(self, key: str, operator: str) -> Value:
        quoted = self._quoted()
        bare = self._take(quoting.BARE) if quoted is None else None
        text = bare if quoted is None else quoted
        if text is None:
            raise InvalidArgument(f"{key}:{operator} has no value; {_EXAMPLES[key]}")
        if key in DOCUMENTS:
            return text if bare is None else _document_value(key, bare)
        if key in NUMBERS:
            return _number(key, text)
        if key in TIMES:
            return _time(key, operator, text)
        if key == "state":
            return parse_state(text)
        if not text.strip():
            raise InvalidArgument(f"{key} has a blank value; {_EXAMPLES[key]}")
        return Pattern(text) if bare is not None and "*" in text and key in PATTERNS else text

    def _quoted(self) -> str | None:
        if self._at >= len(self._text) or self._text[self._at] != '"':
            return None
        found = self._take(_QUOTED)
        if found is None:
            raise InvalidArgument(f"a closing quote is missing after {self._rest()}")
        return re.sub(r"\\(.)", r"\1", found[1:-1], flags=re.DOTALL)

    def _next(self, character: str) -> bool:
        found = self._text.startswith(character, self._at)
        self._at += found
        return found

    def _take(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        return found[0]

    def _rest(self) -> str:
        rest = self._text[self._at :]
        return rest if len(rest) <= 40 else f"{rest[:40]}…"


_EXAMPLES = {
    "state": "such as state:available",
    "queue": "such as queue:mail",
    "worker": "such as worker:SendEmail",
    "tag": "such as tag:vip",
    "node": "such as node:web-1",
    "id": "such as id:42",
    "priority": "such as priority:0",
    "attempt": "such as attempt:>3",
    "max_attempts": "such as max_attempts:1",
    **{key: f"such as {key}:>2026-01-30 or {key}:<1h" for key in TIMES},
    **{key: f"such as {key}.customer.id:7" for key in DOCUMENTS},
}


def _unknown(key: str, word: str = "") -> InvalidArgument:
    near = suggestions.similar(key.lower(), KEYS)
    meant = f"did you mean {near}?" if near else f"the filters are {', '.join(KEYS)}."
    tag = f" To search for a tag, write {display.shown(f'tag:{word}', 80)}." if word and not near else ""
    return InvalidArgument(
        f"{display.shown(key, 60)} is not a filter; {meant}{tag} To search for a text with a colon,"
        " put it in quotes"
    )


def parse_state(text: str) -> str:
    """The state that a text names; raises `InvalidArgument`."""
    if text.lower() in STATES:
        return text.lower()
    hint = suggestions.suggestion(text.lower(), list(STATES))
    raise InvalidArgument(f"{display.shown(text, 60)} is not a state{hint}")


def _number(key: str, text: str) -> int:
    least, most = NUMBERS[key]
    if not re.fullmatch(r"\d{1,19}", text, re.ASCII) or not least <= int(text) <= most:
        raise InvalidArgument(f"{key} is an integer from {least} to {most}, not {display.shown(text, 60)}")
    return int(text)


def _time(key: str, operator: str, text: str) -> Value:
    try:
        if _DAY.fullmatch(text):
            return date.fromisoformat(text)
        if _AGE.fullmatch(text) and "T" not in text:
            durations.parse(text)
            value: Age | datetime = Age("".join(text.split()))
        else:
            time = datetime.fromisoformat(text)
            value = (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument(
            f"{key}: {display.shown(text, 60)} is neither a duration, such as 15m, 6h or 7d, nor a time,"
            " such as 2026-01-30 or 2026-01-30T08:00"
        ) from None
    if not operator:
        raise InvalidArgument(f"{key}:{text} needs < or > before the value, as in {key}:<{text}")
    return value


def _document_value(key: str, text: str) -> Value:
    if text == "*":
        return Anything()
    value = quoting.scalar(text)
    if isinstance(value, (list, dict)):
        raise InvalidArgument(
            f"{key}: {display.shown(text, 60)} is not a single value; to search for this text,"
            " put it in quotes"
        )
    return value  # type: ignore[no-any-return]
