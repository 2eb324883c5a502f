"""Bounds the combinations of the labels `queue` and `worker`, which come from the table."""

import threading

from oban.label_values import LabelValues

#: Stands for all values beyond the maximum.
OTHER = "other"


class Pairs:
    """The values of the labels `queue` and `worker`, of which not every combination gets series of its own.

    There are at most twice as many combinations as `maximum`, and one more.
    """

    def __init__(self, maximum: int) -> None:
        self.queues: LabelValues = LabelValues(maximum, OTHER)
        self._maximum = maximum
        self._workers = LabelValues(maximum, OTHER)
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

    def renew_lock(self) -> None:
        """Make a lock for a forked child, as a thread of its parent may have the one that it inherits."""
        self._lock = threading.Lock()
