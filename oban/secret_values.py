"""`Secrets`: values that are replaced wherever they appear in texts, documents and exceptions."""

import contextlib
import re
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any

from oban.secret_errors import StandIns, texts_of
from oban.secret_forms import Forms

#: The text that is shown in place of a secret value.
REDACTED = "[redacted]"
#: A mark of a text that was cut, with the words that some libraries write into it. Possessive, because a text
#: can have any number of spaces after three dots.
_CUT = re.compile(
    r"(?:\.\.\.|…)"
    r"(?:\s*+(?:\(?[\d,]++ (?:more )?(?:characters|chars|bytes)[a-z ]*+\)?+\s*+)?+(?:\.\.\.|…))?"
    r"\s*+"
)
#: How many marks the end of a secret can have in it.
_MOST_MARKS = 4


class Secrets:
    """Values that are replaced wherever they appear, as they are or escaped, quoted or cut.

    Args:
        values: JSON values. The texts and numbers in lists and dicts are secrets of their own. Booleans,
            null, keys and single characters are none.
    """

    __slots__ = ("_forms", "_values")

    def __init__(self, values: Iterable[Any]) -> None:
        # Copied, because a worker can change its args.
        self._values = frozenset(_leaves(values))
        # Made when they are first needed: most jobs succeed, and no text about them is shown.
        self._forms: Forms | None = None

    def __bool__(self) -> bool:
        return bool(self._values)

    def __or__(self, other: "Secrets | None") -> "Secrets":
        return self if other is None else Secrets([*self._values, *other._values])

    def text(self, value: str) -> str:
        """A text in which the secrets are replaced."""
        if self._forms is None:
            self._forms = Forms(self._values)
        shown, start = [], 0
        for place_start, place_end in self._forms.places(value):
            shown.append(self._without_cut_forms(value[start:place_start], self._forms))
            start = place_end
        shown.append(self._without_cut_forms(value[start:], self._forms))
        return REDACTED.join(shown)

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
        # The methods of an exception can do anything.
        with contextlib.suppress(BaseException):
            shown = "\n".join(texts_of(error))
            if self.text(shown) == shown:
                return error
        return StandIns(self.text).of(error)

    def _without_cut_forms(self, text: str, forms: Forms) -> str:
        """Replace the beginnings and ends of secrets where a text was cut."""
        if "..." not in text and "…" not in text:
            return text
        shown, start, marks = [], 0, [*_CUT.finditer(text)]
        for mark, later in zip_longest(marks, marks[_MOST_MARKS:]):
            # Such dots are in what was replaced.
            if mark.start() < start:
                continue
            before = text[start : mark.start()]
            stripped = before.rstrip()
            length = forms.length_at_end(stripped)
            kept = f"{stripped[:-length]}{REDACTED}" if length else stripped
            shown += [kept, before[len(stripped) :], mark[0]]
            length = forms.length_at_start(text, mark.end(), len(text) if later is None else later.start())
            shown.append(REDACTED if length else "")
            start = mark.end() + length
        return "".join([*shown, text[start:]])


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
