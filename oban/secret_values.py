"""`Secrets`: values that are replaced wherever they appear in texts, documents and exceptions."""

import contextlib
import functools
import json
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from oban import error_texts

#: The text that is shown in place of a secret value.
REDACTED = "[redacted]"
#: Texts of this length are replaced inside of words, too. Shorter ones, down to two characters, are replaced
#: where they stand alone. A single character is not: it would be replaced all over a traceback.
LEAST = 4
#: Secret texts that are longer than this are looked for in their plain, `repr` and JSON forms only.
_LONG = 65_536
#: How much of a secret is looked for before and after a mark that says that a text was cut there.
_LONGEST_PART = 16_384
#: A mark of a text that was cut, with the words that some libraries write into it.
_CUT = re.compile(
    r"\s*(?:\.\.\.|…)(?:\s*(?:\(?[\d,]+ (?:more )?(?:characters|chars|bytes)[a-z ]*\)?\s*)?(?:\.\.\.|…))?\s*"
)


class Secrets:
    """Values that are replaced wherever they appear, as they are or escaped, quoted or cut.

    Args:
        values: JSON values. The texts and numbers in lists and dicts are secrets of their own. Booleans,
            null, keys and single characters are none.
    """

    __slots__ = ("_long", "_short", "_values")

    def __init__(self, values: Iterable[Any]) -> None:
        # Copied, because a worker can change its args.
        self._values = frozenset(_leaves(values))
        # Made when they are first needed: most jobs succeed, and no text about them is shown.
        self._long: list[str] | None = None
        self._short: re.Pattern[str] | None = None

    def __bool__(self) -> bool:
        return bool(self._values)

    def __or__(self, other: "Secrets | None") -> "Secrets":
        return self if other is None else Secrets([*self._values, *other._values])

    def text(self, value: str) -> str:
        """A text in which the secrets are replaced."""
        parts = [value]
        # Parts that are found are left out, so that nothing is replaced twice.
        for form in self._forms():
            if any(form in part for part in parts):
                parts = [rest for part in parts for rest in part.split(form)]
        if self._short is not None:
            parts = [rest for part in parts for rest in self._short.split(part)]
        return REDACTED.join(self._without_cut_forms(part) for part in parts)

    def value(self, document: Any) -> Any:
        """A copy of a JSON value in which the secrets are replaced."""
        if isinstance(document, str):
            return self.text(document)
        if isinstance(document, dict):
            return {self.text(key): self.value(inner) for key, inner in document.items()}
        if isinstance(document, (list, tuple)):
            return [self.value(inner) for inner in document]
        if isinstance(document, (int, float)) and not isinstance(document, bool):
            return REDACTED if len(str(document)) > 1 and document in self._values else document
        return document

    def error(self, error: BaseException) -> BaseException:
        """An exception without the secrets: the same one if its texts have none, else one in its place.

        That one has the same name, traceback and causes, and its message is redacted. It is no instance of
        the original class, which can have the secrets in its attributes.
        """
        try:
            shown = "\n".join(_texts_of(error, set()))
            return error if self.text(shown) == shown else _replaced(error, self.text, {})
        # The methods of an exception can do anything.
        except BaseException:
            return _replaced(error, self.text, {})

    def _forms(self) -> list[str]:
        """The forms that are replaced inside of words, the longest ones first."""
        if self._long is None:
            forms = {form for value in self._values for form in _forms_of(value)}
            short = sorted((re.escape(form) for form in forms if 1 < len(form) < LEAST), reverse=True)
            self._short = re.compile(rf"(?<!\w)(?:{'|'.join(short)})(?!\w)") if short else None
            self._long = sorted((form for form in forms if len(form) >= LEAST), key=len, reverse=True)
        return self._long

    def _without_cut_forms(self, text: str) -> str:
        """Replace the beginnings and ends of secrets where a text was cut."""
        if "..." not in text and "…" not in text:
            return text
        shown, start = [], 0
        for mark in _CUT.finditer(text):
            before, after = text[start : mark.start()], text[mark.end() :]
            length = max((_end_in_form(before, form) for form in self._forms()), default=0)
            shown.append(before[: len(before) - length] + REDACTED if length else before)
            shown.append(mark[0])
            length = max((_start_in_form(after, form) for form in self._forms()), default=0)
            shown.append(REDACTED if length else "")
            start = mark.end() + length
        return "".join([*shown, text[start:]])


def _end_in_form(text: str, form: str) -> int:
    """How many characters at the end of a text are the beginning of a form; 0 if they are too few."""
    tail = text[-_LONGEST_PART:]
    at = tail.find(form[:LEAST])
    while at != -1:
        if form.startswith(tail[at:]):
            return len(tail) - at
        at = tail.find(form[:LEAST], at + 1)
    return 0


def _start_in_form(text: str, form: str) -> int:
    """How many characters at the start of a text are the end of a form; 0 if they are too few."""
    head = text[:_LONGEST_PART]
    at = head.rfind(form[-LEAST:])
    while at != -1:
        if form.endswith(head[: at + LEAST]):
            return at + LEAST
        at = head.rfind(form[-LEAST:], 0, at + LEAST - 1)
    return 0


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value
        elif isinstance(value, str) or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            yield value


def _forms_of(value: Any) -> set[str]:
    """How a text or a number can be written."""
    if not isinstance(value, str):
        return _forms_of_number(value)
    forms: set[str] = set()
    # Applications strip what they are sent, and tracebacks indent each line of a message.
    for text in {value, value.strip(), *(line.strip() for line in value.splitlines())}:
        if len(text.strip()) > 1:
            forms |= _escaped(text)
    return forms


def _escaped(text: str) -> set[str]:
    forms = {text}
    # An escaped text can be part of another one, such as JSON in the `repr` of a string.
    for _ in range(2 if len(text) <= _LONG else 1):
        forms |= {escape(form) for form in forms for escape in _ESCAPES}
    if len(text) <= _LONG:
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


def _forms_of_number(value: float) -> set[str]:
    if len(str(value)) == 1:
        return set()
    forms = {str(value), json.dumps(value), f"{value:,}", f"{value:_}"}
    if abs(value) < 1e15:
        forms |= {f"{value:.2f}", f"{value:,.2f}", f"{value:g}"}
        if value == int(value):
            forms |= {str(int(value)), f"{int(value):,}"}
    return forms


# ---------------------------------------------------------------- exceptions


def _texts_of(error: BaseException, seen: set[int]) -> Iterator[str]:
    """All texts that a log record can show of an exception, of its causes and of its context."""
    yield "".join(traceback.format_exception(error))
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield from (str(each), repr(each), repr(each.args), repr(vars(each)))
        waiting += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions


def _replaced(
    error: BaseException, redact: Callable[[str], str], made: dict[int, BaseException]
) -> BaseException:
    """An exception that is shown as another one is, without its secrets, and so are its causes."""
    if id(error) in made:
        return made[id(error)]
    cls = type(error)
    try:
        message = redact(str(error))
    except BaseException:
        message = error_texts.UNPRINTABLE
    stand_in: BaseException
    if isinstance(error, BaseExceptionGroup):
        inner = [_replaced(each, redact, made) for each in error.exceptions]
        with contextlib.suppress(BaseException):
            message = redact(error.message)
        stand_in = _class(BaseExceptionGroup, cls.__module__, cls.__qualname__)(message, inner)
    else:
        stand_in = _class(Exception, cls.__module__, cls.__qualname__)(message)
    made[id(error)] = stand_in
    with contextlib.suppress(BaseException):
        for note in error.__notes__:
            stand_in.add_note(redact(note if isinstance(note, str) else repr(note)))
    stand_in.__traceback__ = error.__traceback__
    for name in ("__cause__", "__context__"):
        if (other := getattr(error, name)) is not None:
            setattr(stand_in, name, _replaced(other, redact, made))
    stand_in.__suppress_context__ = error.__suppress_context__
    return stand_in


@functools.lru_cache(256)
def _class(base: type[BaseException], module: str, name: str) -> Any:
    return type(name.rpartition(".")[2], (base,), {"__module__": module, "__qualname__": name})
