"""Owns the services of one node: in which order they start and stop, and the deadlines."""

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from oban import dialects, notifier
from oban.config import Options
from oban.repository.transaction import Database
from oban.runner.executor import Run
from oban.runner.producer import Producer
from oban.runner.service import Service
from oban.runner.stager import Stager
from oban.runner.watcher import Watcher

logger = logging.getLogger("oban.runner")

#: How long cancelled jobs may take to end, and the last outcomes to be stored, in seconds.
LAST_MOMENTS = 5.0


class Runner:
    """One node at work. `start` it once, `stop` it once."""

    def __init__(self, database: Database, options: Options) -> None:
        self.database = database
        self.options = options
        self._threads = ThreadPoolExecutor(
            max_workers=max(1, sum(queue.limit for queue in options.queues.values())),
            thread_name_prefix="oban",
        )
        self.notifier = notifier.make(database)
        self.stager = Stager(database, options.stage_interval)
        self.watcher = Watcher(database, options.watch_interval, self.runs)
        self.producers = {
            name: Producer(
                database,
                queue=name,
                limit=queue.limit,
                node=options.node,
                interval=options.poll_interval,
                threads=self._threads,
            )
            for name, queue in options.queues.items()
        }
        self._hurry = asyncio.Event()

    def runs(self) -> Iterator[Run]:
        """Every attempt that is under way on this node."""
        for producer in self.producers.values():
            yield from producer.runs

    async def start(self) -> None:
        """Start everything. Raises `SchemaMissing`, and the driver's error when there is no database."""
        await self.database.prepare()
        self.notifier.subscribe("insert", self._on_insert)
        self.notifier.subscribe("signal", self._on_signal)
        try:
            await self.notifier.start()
            for service in self._services():
                await service.start()
        except BaseException:
            # Interrupted half-way, it leaves nothing running.
            await self.stop()
            raise
        queues = ", ".join(f"{p.queue}:{p.limit}" for p in self.producers.values())
        logger.info("node %s runs %s", self.options.node, queues)

    def hurry(self) -> None:
        """Cut the grace period short: a second request to stop."""
        self._hurry.set()

    async def stop(self) -> None:
        """Stop fetching, let jobs finish, put back those that do not, store every outcome."""
        for producer in self.producers.values():
            producer.fetching = False
        if not await self._finished(self.options.shutdown_grace_period):
            left = list(self.runs())
            ids = ", ".join(str(run.held[0]) for run in left)
            logger.warning("put back, not finished in the grace period: jobs %s", ids or "none")
            for producer in self.producers.values():
                producer.closed = True
            for run in left:
                run.release()
            hurried = self._hurry.is_set()
            await self._finished(LAST_MOMENTS / 10 if hurried else LAST_MOMENTS, hurried=False)
            for producer in self.producers.values():
                for run in list(producer.runs):
                    producer.abandon(run)
        for service in self._services():
            await service.stop()
        await asyncio.gather(*(self._store_last(producer) for producer in self.producers.values()))
        await self.notifier.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _services(self) -> list[Service]:
        return [*self.producers.values(), self.stager, self.watcher]

    async def _finished(self, seconds: float, hurried: bool = True) -> bool:
        """Wait until no job runs, for some seconds at most; whether none does."""
        ended = asyncio.create_task(self._ended())
        hurry = asyncio.create_task(self._hurry.wait())
        awaited = {ended, hurry} if hurried else {ended}
        await asyncio.wait(awaited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        done = ended.done()
        for task in (ended, hurry):
            task.cancel()
        await asyncio.wait({ended, hurry})
        return done

    async def _ended(self) -> None:
        for producer in self.producers.values():
            await producer.settled()
        # A task that was cancelled before its first step is done, though its run is still listed.
        while tasks := {run.task for run in self.runs() if run.task and not run.task.done()}:
            await asyncio.wait(tasks)

    async def _store_last(self, producer: Producer) -> None:
        try:
            async with asyncio.timeout(LAST_MOMENTS):
                while len(producer.acknowledger):
                    try:
                        await producer.tick()
                    except Exception as error:
                        logger.warning("storing the last outcomes failed: %s", dialects.cause(error))
                        await asyncio.sleep(0.2)
        except TimeoutError:
            logger.error("%s outcomes could not be stored", len(producer.acknowledger))

    def _on_insert(self, payload: dict[str, Any]) -> None:
        if not payload:
            self.stager.wake()
            for producer in self.producers.values():
                producer.wake()
        elif producer_of := self.producers.get(str(payload.get("queue"))):
            producer_of.wake()

    def _on_signal(self, payload: dict[str, Any]) -> None:
        match payload:
            case {"action": "pkill", "job_id": int(id_)}:
                self.watcher.wake_for(id_)
            case {"action": "stage", "in": int(seconds) | float(seconds)}:
                self.stager.wake_within(seconds)
            case {"action": "stage"}:
                self.stager.wake()
            case {}:
                self.watcher.wake()
