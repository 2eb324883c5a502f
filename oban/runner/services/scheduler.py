"""Inserts the jobs of periodic entries when they are due."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from oban import clock
from oban.config import Options
from oban.database.aio import Database
from oban.errors import ConfigError
from oban.periodic import Periodic
from oban.repository import cluster, periodic, ticks
from oban.repository.announce import PERIODIC
from oban.runner.bisection import bisect_failures
from oban.runner.services.base import Service
from oban.runner.services.leader import Leader
from oban.runner.timetable import Timetable
from oban.telemetry import PeriodicInserted, Telemetry

logger = logging.getLogger("oban.scheduler")

#: The longest sleep, in seconds. After it, the entries and the database's clock are read again.
MAX_SLEEP = 30.0
#: Seconds by which a tick is late on purpose, because a loop's timers and the distance between two clocks are
#: not exact, and a transaction that comes too early inserts nothing.
_LATE = 0.01
#: Seconds until entries that another transaction has locked are declared again.
DECLARE_AGAIN = 1.0
#: Seconds for which entries that are locked are looked for among those that fire together.
MAX_LOCKED = 5.0
#: Seconds between two looks for old ticks and for entries that are not in the code any more, and before the
#: first of them.
CLEAN_INTERVAL = 3600.0
CLEAN_AFTER = 60.0
#: Seconds after which an entry of the code that no node declares is deleted.
DELETE_GONE_AFTER = 86_400.0

#: The number of entries, and when one of them was changed last.
Version = tuple[int, str | None]


class Scheduler(Service):
    """Declares the entries of this node's code and, on the leader, fires all entries of the instance.

    The leader sleeps until the next entry is due by the database's clock, at most `MAX_SLEEP`. It knows that
    clock by its distance to the monotonic clock. What it knows only decides when to look: which ticks insert
    jobs is decided in the transaction that inserts them. So a clock that moves, two leaders at once or an
    entry that was changed meanwhile do no harm.
    """

    def __init__(
        self, database: Database, options: Options, leader: Leader, entries: Callable[[], Sequence[Periodic]]
    ) -> None:
        super().__init__("scheduler", MAX_SLEEP, database.telemetry)
        self.database = database
        self.leader = leader
        self._options = options
        self._entries_of_code = entries
        #: The start of this node by the database's clock.
        self._declared_at: datetime | None = None
        #: When to declare, to load the entries and to clean, by the monotonic clock.
        self._declare_at = self._load_at = self._clean_at = 0.0
        self._shadowed: list[str] = []
        #: The term of this node as the leader to which the rest belongs.
        self._term = 0
        #: When the term began, until the entries for a reboot have fired; None if another leader preceded.
        self._reboot: datetime | None = None
        self._timetable = Timetable(database.telemetry)
        self._version: Version | None = None
        #: The database's time, and when it was read by the monotonic clock.
        self._read_time, self._read_at = clock.now(), clock.monotonic()
        self._read_moved = False

    async def tick(self) -> float | None:
        pause = await self._declare()
        if self.leader.leads:
            pause = min(pause, await self._lead())
        return min(pause, self.interval)

    def reload(self) -> None:
        """Read the entries again, as somebody has changed them."""
        self._load_at = 0.0
        self._timetable.forget_failures()
        if self.leader.leads:
            self.wake()

    def on_signal(self, payload: Mapping[str, object]) -> None:
        """Read the entries again after a command about one of them."""
        match payload:
            case {"action": action, "name": name} if (action, name) == (PERIODIC, self._options.name):
                self.reload()

    def on_poll(self, version: Version) -> None:
        """Read the entries again if a poll finds them changed."""
        if version != self._version:
            self._version = version
            self.reload()

    async def stop(self, timeout: float = 5.0) -> None:
        await super().stop(timeout)
        if self._timetable.reboots and self.leader.leads:
            # The leader's row, which would tell the next one when this term has ended, will be deleted.
            await self.database.write(ticks.end_term, self._options.name, self._timetable.reboots)

    async def _declare(self) -> float:
        """Declare the entries of the code if it is time to; returns the seconds until the next time."""
        if (left := self._declare_at - clock.monotonic()) > 0:
            return left
        pause = min(self._options.heartbeat_interval, periodic.MAX_INTERVAL)
        # Workers can be defined while the node runs.
        if (entries := self._find_entries()) and not await self._declare_entries(entries):
            pause = min(pause, DECLARE_AGAIN)
        self._declare_at = clock.monotonic() + pause
        return pause

    def _find_entries(self) -> Sequence[Periodic]:
        try:
            return self._entries_of_code()
        except ConfigError as error:
            logger.error("the periodic entries of the code cannot be declared: %s", error)
            return ()

    async def _declare_entries(self, entries: Sequence[Periodic]) -> bool:
        """Declare what is not, or not any more; returns whether all of it was stored."""
        name, lease = self._options.name, self._options.lease
        if self._declared_at is None:
            self._declared_at = await self.database.read(cluster.database_time)
        found = await self.database.read(periodic.find_undeclared, name, entries, self._declared_at, lease)
        stored = 0
        if found.entries:
            stored = await self.database.write(
                periodic.declare, name, found.entries, self._declared_at, lease
            )
            # One of them may be new, or was gone.
            self._load_at = 0.0
        for shadowed in set(found.shadowed).difference(self._shadowed):
            logger.warning(
                "the periodic entry %s of the code is not in use, because add_periodic has added one of this"
                " name: delete that one, or rename this one",
                shadowed,
            )
        self._shadowed = found.shadowed
        return stored == len(found.entries)

    async def _lead(self) -> float:
        """Fire what is due; returns the seconds until something else has to be done."""
        if self._term != self.leader.term:
            await self._begin_term()
        # A test can begin or cease to move the clock.
        if clock.monotonic() >= self._load_at or self._read_moved != clock.moved():
            await self._load()
        if due := self._timetable.due(self._now()):
            await self._fire(due)
        if not self._timetable.has_failures(self._timetable.reboots):
            # An entry that is added later waits for the next reboot.
            self._reboot = None
        if clock.monotonic() >= self._clean_at:
            await self._clean()
        moments = [self._load_at, self._clean_at]
        if (retry_at := self._timetable.next_retry()) is not None:
            moments.append(retry_at)
        pause = min(moments) - clock.monotonic()
        if (next_tick := self._timetable.next_tick()) is not None:
            pause = min(pause, (next_tick - self._now()).total_seconds() + _LATE)
        return max(0.0, pause)

    async def _begin_term(self) -> None:
        """Find out whether this term follows a reboot, and forget an earlier one."""
        term, self._reboot = self.leader.term, None
        if self.leader.follows_vacancy:
            self._reboot = await self.database.read(
                ticks.elected_at, self._options.name, self.leader.identity
            )
        self._timetable, self._load_at = Timetable(self.telemetry), 0.0
        self._clean_at = clock.monotonic() + CLEAN_AFTER
        self._term = term

    def _now(self) -> datetime:
        """The time by the database's clock."""
        if clock.moved():
            return clock.now()
        return self._read_time + timedelta(seconds=clock.monotonic() - self._read_at)

    def _note_time(self, time: datetime) -> None:
        self._read_time, self._read_at, self._read_moved = time, clock.monotonic(), clock.moved()

    async def _load(self) -> None:
        """Read the entries and the database's clock."""
        name = self._options.name
        time, entries = await self.database.read(ticks.read_clock_and_entries, name)
        if any(map(ticks.has_to_begin, entries)):
            await self.database.write(ticks.begin_entries, name)
            time, entries = await self.database.read(ticks.read_clock_and_entries, name)
        self._note_time(time)
        self._load_at = clock.monotonic() + MAX_SLEEP
        self._timetable.update(time, entries, self._options.lease, self._reboot)

    async def _fire(self, names: list[str]) -> None:
        """Fire entries, and those that the database refuses to store apart from the others."""
        failures: list[tuple[str, Exception]] = []
        give_up_at = clock.monotonic() + MAX_LOCKED

        async def fire(some: Sequence[str]) -> None:
            try:
                failures.extend(await self._fire_together(some))
            except Exception as error:
                if len(some) > 1 or not self._is_locked(error):
                    raise
                failures.append((some[0], error))

        def is_outage(error: Exception) -> bool:
            if self._is_locked(error):
                # Perhaps it is a lock of a whole table.
                return clock.monotonic() >= give_up_at
            return self.database.dialect.is_retryable(error)

        unique = self._timetable.uniques.intersection(names)
        tried: Sequence[str] = ()
        try:
            # A transaction that is open can keep the key of a unique job locked.
            for some in ([name for name in names if name not in unique], sorted(unique)):
                if not some:
                    continue
                try:
                    await fire(some)
                except Exception as error:
                    if is_outage(error):
                        raise
                    failures += await bisect_failures(some, fire, is_outage)
            tried = names
        finally:
            # In an outage, only those whose own fault is known.
            self._timetable.note_failures(tried or [name for name, _ in failures], failures, self._is_locked)

    def _is_locked(self, error: Exception) -> bool:
        return isinstance(error, ticks.EntryLocked) or self.database.dialect.is_locked(error)

    async def _fire_together(self, names: Sequence[str]) -> list[tuple[str, Exception]]:
        """Fire entries in one transaction; returns those whose values make no valid job."""
        if not self.leader.leads:
            return []
        options = self._options
        fired = await self.database.write(
            ticks.fire,
            options.name,
            names,
            options.lease,
            reboot=self._reboot,
            max_attempts=options.max_attempts,
        )
        emit_inserted(self.database.telemetry, fired)
        self._note_time(fired.now)
        waiting = [name for name, error in fired.failures if self._is_locked(error)]
        done = set(names).difference(waiting)
        self._timetable.update(fired.now, fired.entries, options.lease, self._reboot, done)
        return fired.failures

    async def _clean(self) -> None:
        """Delete a batch of old ticks, and entries that no node has declared for a day."""
        await self.database.write(periodic.delete_gone, self._options.name, DELETE_GONE_AFTER)
        deleted = await self.database.write(ticks.prune_ticks)
        pause = 1.0 if deleted >= ticks.PRUNE_BATCH else CLEAN_INTERVAL
        self._clean_at = clock.monotonic() + pause


def emit_inserted(telemetry: Telemetry, fired: ticks.Fired, *, in_transaction: bool = False) -> None:
    """Emit `PeriodicInserted` for each job that entries have inserted."""
    if telemetry.wants(PeriodicInserted):
        for (entry, tick, job_id), job in zip(fired.ticks, fired.jobs, strict=True):
            telemetry.emit(
                PeriodicInserted,
                entry=entry,
                tick=tick,
                job_id=job_id,
                worker=job.worker,
                queue=job.queue,
                in_transaction=in_transaction,
            )
