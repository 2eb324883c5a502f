"""Bounds the values of the labels `queue` and `worker`, which come from the table."""

import threading

#: Stands for all values beyond the maximum.
OTHER = "other"
#: The most characters of a value.
MAX_LENGTH = 128


def sanitize(name: str) -> str:
    """A name as the value of a label: one short line that any program can read."""
    # Other programs can store anything in the columns, and surrogates cannot be encoded.
    text = "".join(character if character.isprintable() else "?" for character in name[: MAX_LENGTH + 1])
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 1]}…"


class Names:
    """The values of a label. The first ones are kept, and the rest becomes `other`.

    Args:
        maximum: How many different values there can be, besides `other`.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._labels: dict[str, str] = {}
        self._lock = threading.Lock()

    def label(self, name: str) -> str:
        """The value for a name."""
        found = self._labels.get(name)
        return self._add(name) if found is None else found

    def _add(self, name: str) -> str:
        with self._lock:
            if name not in self._labels and len(self._labels) >= self._maximum:
                return OTHER
            return self._labels.setdefault(name, sanitize(name))

    def renew_lock(self) -> None:
        """Make a lock for a forked child, as a thread of its parent may have the one that it inherits."""
        self._lock = threading.Lock()


class Pairs:
    """The values of the labels `queue` and `worker`, of which not every combination gets series of its own.

    There are at most twice as many combinations as `maximum`, and one more.
    """

    def __init__(self, maximum: int) -> None:
        self.queues: Names = Names(maximum)
        self._maximum = maximum
        self._workers = Names(maximum)
        self._lock = threading.Lock()
        self._pairs: set[tuple[str, str]] = set()

    def labels(self, queue: str, worker: str) -> tuple[str, str]:
        """The values for a queue and a worker. A combination beyond the maximum is of the worker `other`."""
        pair = self.queues.label(queue), self._workers.label(worker)
        if pair in self._pairs or pair[1] == OTHER:
            return pair
        with self._lock:
            if pair not in self._pairs and len(self._pairs) >= self._maximum:
                return pair[0], OTHER
            self._pairs.add(pair)
        return pair

    def renew_locks(self) -> None:
        """As `Names.renew_lock`."""
        self._lock = threading.Lock()
        self.queues.renew_lock()
        self._workers.renew_lock()
