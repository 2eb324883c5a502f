"""`LabelValues`: bounds the values of a label of metrics, which come from the table."""

import os
import threading
from weakref import WeakSet

#: The most characters of a value.
MAX_LENGTH = 128


def sanitize(name: str) -> str:
    """A name as the value of a label: one short line that any program can read."""
    # Other programs can store anything in the columns, and surrogates cannot be encoded.
    text = "".join(character if character.isprintable() else "?" for character in name[: MAX_LENGTH + 1])
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 1]}…"


class LabelValues:
    """The values of one label. Any number of threads can use it.

    Args:
        maximum: How many names get a value of their own. All further ones share the value `other`.
        other: That value.
    """

    def __init__(self, maximum: int, other: str) -> None:
        self._maximum = maximum
        self._other = other
        self._values: dict[str, str] = {}
        self._lock = threading.Lock()
        _all.add(self)

    def label(self, name: str) -> str:
        """The value for a name."""
        found = self._values.get(name)
        return self._add(name) if found is None else found

    def _add(self, name: str) -> str:
        with self._lock:
            if name not in self._values and len(self._values) >= self._maximum:
                return self._other
            return self._values.setdefault(name, sanitize(name))


_all: "WeakSet[LabelValues]" = WeakSet()


def _renew_locks() -> None:
    """Make locks for a forked child, as threads of its parent may have those that it inherits."""
    for values in list(_all):
        values._lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_locks)
