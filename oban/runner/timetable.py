"""When the leader has to look at which periodic entry again."""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from oban import backoff, clock, dialects
from oban.cron import Cron
from oban.repository import ticks
from oban.repository.periodic import Entry
from oban.telemetry import PeriodicFailed, Telemetry
from oban.telemetry.errors import error_fields

logger = logging.getLogger("oban.scheduler")

#: The longest pause, in seconds, before an entry that could not fire tries again.
MAX_PAUSE = 30.0
#: The attempt at which a lock that still keeps an entry from firing is logged, after about a second.
_LONG_LOCKED = 4


class _Next(NamedTuple):
    """When an entry is due next, and the values from which that follows."""

    timing: tuple[object, ...]
    at: datetime | None


class _Failure(NamedTuple):
    """How often in a row an entry could not fire, why, and when it tries again by the monotonic clock."""

    attempts: int
    message: str
    retry_at: float


class Timetable:
    """The next tick of each entry, by the database's clock, and the pauses of those that could not fire.

    It is no more than a guess: what is due is decided when it is fired.
    """

    def __init__(self, telemetry: Telemetry | None = None) -> None:
        self._telemetry = telemetry or Telemetry()
        self._next: dict[str, _Next] = {}
        self._failures: dict[str, _Failure] = {}
        #: The names of the entries that fire after a reboot, and of those with unique jobs.
        self.reboots: list[str] = []
        self.uniques: set[str] = set()

    def update(
        self,
        now: datetime,
        entries: Iterable[Entry],
        lease: float,
        reboot: datetime | None,
        fired: Collection[str] = (),
    ) -> None:
        """Note when entries are due after `now`. Those that have just `fired` have nothing due any more.

        `lease` and `reboot` are as for `oban.repository.ticks.fire`.
        """
        entries = list(entries)
        self.reboots = [entry.name for entry in entries if ticks.is_reboot(entry)]
        self.uniques = {entry.name for entry in entries if entry.values.get("unique")}
        before, self._next = self._next, {}
        for entry in entries:
            timing = (entry.values, entry.last_tick)
            old = before.get(entry.name)
            if entry.paused or entry.is_gone(lease):
                at = None
            elif old and old.at and old.timing == timing and old.at > now and entry.name not in fired:
                # It takes a while to compute.
                at = old.at
            else:
                at = _next_tick(entry, now, lease, reboot, fired)
            self._next[entry.name] = _Next(timing, at)
        self._failures = {name: one for name, one in self._failures.items() if name in self._next}

    def due(self, now: datetime) -> list[str]:
        """The names of the entries that seem to be due."""
        time = clock.monotonic()
        return [
            name
            for name, upcoming in self._next.items()
            if (time >= failure.retry_at if (failure := self._failures.get(name)) else _is_due(upcoming, now))
        ]

    def next_tick(self) -> datetime | None:
        """The next time at which an entry is due."""
        times = [one.at for name, one in self._next.items() if one.at and name not in self._failures]
        return min(times, default=None)

    def next_retry(self) -> float | None:
        """When the next entry that could not fire tries again, by the monotonic clock."""
        return min((failure.retry_at for failure in self._failures.values()), default=None)

    def note_failures(
        self,
        tried: Iterable[str],
        failures: Sequence[tuple[str, Exception]],
        is_locked: Callable[[Exception], bool],
    ) -> None:
        """Log and emit which of the entries that were tried could not fire, and let them try again later.

        `is_locked` says whether an error is about a lock of another transaction, which ends soon as a rule.
        """
        errors = dict(failures)
        for name in tried:
            before = self._failures.pop(name, None)
            if (error := errors.get(name)) is None:
                continue
            attempts = before.attempts + 1 if before else 1
            locked = is_locked(error)
            pause = backoff.pause(attempts, backoff.LONGEST_PAUSE if locked else MAX_PAUSE)
            message = f"{type(error).__name__}: {dialects.driver_error(error)}"
            self._failures[name] = _Failure(attempts, message, clock.monotonic() + pause)
            # Not again with each attempt.
            is_new = before is None or before.message != message
            if attempts >= _LONG_LOCKED or not locked:
                self._emit_failure(name, error, attempts, pause)
            if attempts == _LONG_LOCKED if locked else is_new:
                logger.error(
                    "the periodic entry %s cannot insert its jobs, and tries again: %s", name, message
                )

    def _emit_failure(self, entry: str, error: Exception, failures: int, pause: float) -> None:
        if self._telemetry.wants(PeriodicFailed):
            self._telemetry.emit(
                PeriodicFailed, entry=entry, failures=failures, pause=pause, **error_fields(error)
            )

    def has_failures(self, names: Iterable[str]) -> bool:
        """Whether one of some entries could not fire."""
        return not self._failures.keys().isdisjoint(names)

    def forget_failures(self) -> None:
        """Let the entries that could not fire try again now, as somebody may have mended them."""
        self._failures = {name: one._replace(retry_at=0.0) for name, one in self._failures.items()}


def _is_due(upcoming: _Next, now: datetime) -> bool:
    return upcoming.at is not None and upcoming.at <= now


def _next_tick(
    entry: Entry, now: datetime, lease: float, reboot: datetime | None, fired: Collection[str]
) -> datetime | None:
    try:
        if entry.name not in fired and ticks.due_ticks_of(entry, now, lease, reboot):
            return now
        cron = Cron.parse(entry.values.get("expression"), entry.values.get("timezone", "UTC"))
        return cron.next_after(now if entry.last_tick is None else max(now, entry.last_tick))
    # The attempt to fire it tells what is wrong.
    except Exception:
        return now
