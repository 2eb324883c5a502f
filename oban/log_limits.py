"""`LogLimit`: keeps a problem that occurs again and again from filling the log."""

import math
import threading

from oban import clock

#: Seconds between two log records about the same problem.
INTERVAL = 60.0


class LogLimit:
    """Limits the log records about one problem to one per `INTERVAL`. Any number of threads can use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._silent_until = -math.inf

    def count(self) -> int:
        """Count an occurrence. Returns how many to report now, or 0 if it is too early for a record."""
        with self._lock:
            self._count += 1
            now = clock.monotonic()
            if now < self._silent_until:
                return 0
            count, self._count = self._count, 0
            self._silent_until = now + INTERVAL
            return count
