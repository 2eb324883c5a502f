"""`Sampler`: reads samples from the database in a thread, so that no scrape waits for it for long."""

import asyncio
import logging
import threading
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any

from oban import clock, dialects, error_texts
from oban.client import Oban
from oban.database.aio import Database
from oban.database.sync import SyncDatabase
from oban.errors import ConfigError
from oban.log_limits import LogLimit
from oban.repository.sample import Sample, load_sample
from oban.sync_client import SyncOban

logger = logging.getLogger("oban.prometheus")

#: Seconds that a scrape waits for a new sample before it shows the last one.
PATIENCE = 0.5
#: Seconds that reading a sample can take.
TIMEOUT = 10.0
#: The least ratio of the time between two samples to the time that the last one took, or took to fail.
LEAST_RATIO, LEAST_RATIO_AFTER_FAILURE = 20, 3
#: A scrape just before the end of an interval gets a new sample, because scrapes are never quite regular.
TOLERANCE = 0.9


class Sampler:
    """Keeps the last sample of an instance. One thread at a time reads a new one when a scrape asks for it.

    Args:
        client: The client whose database is read, on a connection of its own that is closed again.
        interval: Seconds for which a sample is new enough. They become more if reading takes long, so that
            the database spends at most a twentieth of its time on that.
        count_limit: Up to how many jobs of each queue and state are counted.

    Raises:
        ConfigError: The client was made for a session or a connection.
    """

    def __init__(self, client: Oban | SyncOban, interval: float, count_limit: int) -> None:
        self._database: Database | SyncDatabase = client._database
        if self._database.joined is not None:
            raise ConfigError("metrics need a client of an engine or a URL, not of a session or connection")
        self._name = client.options.name
        self._interval = interval
        self.count_limit = count_limit
        self._own: Database | None = None
        #: The loop of the application that asks.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._log_limit = LogLimit()
        self._lock = threading.Lock()
        self._reading: Future[None] | None = None
        self._began_at: float | None = None
        self._failed = False
        self._failed_after = 0.0
        self._sample: tuple[float, Sample] | None = None
        #: Seconds that reading the last sample took; None without one.
        self.duration: float | None = None

    @property
    def sample(self) -> Sample | None:
        """The last sample."""
        return None if self._sample is None else self._sample[1]

    @property
    def age(self) -> float | None:
        """The age of the last sample in seconds."""
        return None if self._sample is None else clock.monotonic() - self._sample[0]

    @property
    def is_up(self) -> bool:
        """Whether the database has answered the last time, and does not take long to answer now."""
        if self._failed or self._sample is None:
            return False
        took_long = self._began_at is not None and clock.monotonic() - self._began_at > self._interval
        return not (self._reading is not None and took_long)

    def refresh(self) -> None:
        """Read a new sample if it is time for one, and wait for it for a moment. Call it in a thread."""
        if (reading := self._begin()) is not None:
            wait([reading], self._patience())

    async def refresh_async(self) -> None:
        """The same on an event loop."""
        self._loop = asyncio.get_running_loop()
        if (reading := self._begin()) is not None:
            await asyncio.wait([asyncio.wrap_future(reading)], timeout=self._patience())

    def begin(self) -> None:
        """The same without waiting."""
        self._begin()

    def renew(self) -> None:
        """Read anew in a forked child, which has neither the thread of its parent nor its connection."""
        self._lock = threading.Lock()
        self._reading = self._began_at = self._own = self._loop = None

    def _patience(self) -> float:
        return max(0.0, (self._began_at or 0.0) + PATIENCE - clock.monotonic())

    def _least_pause(self) -> float:
        """The least seconds between two samples, so that the database has other things to do, too."""
        if self._failed:
            # Soon enough to notice that it is back.
            return LEAST_RATIO_AFTER_FAILURE * self._failed_after
        return LEAST_RATIO * (self.duration or 0.0)

    def _begin(self) -> Future[None] | None:
        """Begin to read a sample, unless that is under way or the last one is new enough."""
        with self._lock:
            if self._reading is not None:
                return self._reading
            now = clock.monotonic()
            pause = max(TOLERANCE * self._interval, self._least_pause())
            if self._began_at is not None and now - self._began_at < pause:
                return None
            self._began_at = now
            self._reading = reading = Future[None]()
        try:
            threading.Thread(target=self._run, args=(reading,), name="oban-metrics", daemon=True).start()
        # At the end of the interpreter, or without memory for a thread.
        except RuntimeError:
            self._end(reading, failed=True)
        return reading

    def _run(self, reading: "Future[None]") -> None:
        began_at = clock.monotonic()
        try:
            sample = self._read()
        except BaseException as error:
            self._failed_after = clock.monotonic() - began_at
            self._end(reading, failed=True)
            if count := self._log_limit.count():
                message = error_texts.error_line(dialects.driver_error(error))
                logger.warning(
                    "the metrics could not be read from the database: %s (%s since the last report)",
                    *(message, count),
                )
        else:
            ended_at = clock.monotonic()
            self.duration, self._sample = ended_at - began_at, (ended_at, sample)
            self._end(reading, failed=False)

    def _end(self, reading: "Future[None]", *, failed: bool) -> None:
        with self._lock:
            # A fork may have renewed everything meanwhile.
            if self._reading is reading:
                self._reading = None
            self._failed = failed
        reading.set_result(None)

    def _read(self) -> Sample:
        database = self._database
        if isinstance(database, SyncDatabase):
            return database.read_in(None, load_sample, self._name, self.count_limit)
        if self._own is None:
            self._own = database.with_own_pool(1, TIMEOUT, own_loop=True)
        if self._own is not database:
            return asyncio.run(_read_once(self._own, self._name, self.count_limit))
        # A database in memory has one connection, which belongs to a loop.
        work = database.read(load_sample, self._name, self.count_limit)
        loop = database.loop or self._loop
        if loop is None or loop.is_closed():
            return asyncio.run(work)
        return asyncio.run_coroutine_threadsafe(work, loop).result(TIMEOUT)


async def _read_once(database: Database, *arguments: Any) -> Sample:
    """Read a sample on a loop of its own, and close the connection."""
    try:
        async with asyncio.timeout(TIMEOUT):
            return await database.read(load_sample, *arguments)
    finally:
        with suppress(Exception):
            await database.dispose()
