"""The queues of one node: starts, changes and removes their producers."""

import asyncio
import contextvars
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping

from oban.config import Options
from oban.repository.cluster import Heartbeat, QueueInfo
from oban.repository.queue_settings import QueueState
from oban.runner.deadlines import ShutdownBudget
from oban.runner.execution.producer import Producer
from oban.runner.execution.run import Run
from oban.runner.heartbeat_thread import HeartbeatThread
from oban.telemetry import QueueAdjusted, QueueEvent, QueueStarted, QueueStopped

logger = logging.getLogger("oban.runner")


class Queues:
    """The producers of this node, one for each queue that it runs."""

    def __init__(
        self,
        options: Options,
        make_producer: Callable[[str, QueueState], Producer],
        heartbeat_thread: HeartbeatThread,
        budget: ShutdownBudget,
        on_change: Callable[[], None],
    ) -> None:
        #: By queue. Other threads iterate over it, so it is replaced and never changed.
        self.producers: dict[str, Producer] = {}
        self._make_producer = make_producer
        self._heartbeat_thread = heartbeat_thread
        self._budget = budget
        #: Called when the queues that run, or their limits, have changed.
        self._on_change = on_change
        self._timeout = options.statement_timeout
        self._context = contextvars.copy_context()
        self._retired = False

    def runs(self) -> Iterator[Run]:
        """Every attempt that is under way on this node."""
        for producer in self.producers.values():
            yield from producer.runs

    def heartbeats(self) -> list[Heartbeat]:
        """The heartbeat of each producer. Called from another thread."""
        return [producer.heartbeat() for producer in self.producers.values()]

    def check(self) -> list[QueueInfo]:
        """Every queue of this node as it is now."""
        return [producer.check() for producer in self.producers.values()]

    def wake(self, queues: Iterable[str] | None = None) -> None:
        """Let some queues look for jobs, or all of them."""
        for queue in self.producers if queues is None else queues:
            # It may have been removed meanwhile.
            if queue in self.producers:
                self.producers[queue].wake()

    async def apply(self, states: Mapping[str, QueueState]) -> None:
        """Run these queues and no others; returns when they do.

        A queue that is not among them fetches no more. A later call removes it, when its last job has ended.
        """
        if self._retired:
            return
        adjusted = (self._adjust(producer, states.get(queue)) for queue, producer in self.producers.items())
        has_changed = any(await asyncio.gather(*adjusted))
        ended = [producer for producer in self.producers.values() if producer.stopped and producer.idle]
        new = {
            queue: self._make_producer(queue, state)
            for queue, state in states.items()
            if queue not in self.producers
        }
        await self._replace(ended, new)
        if (has_changed or new) and not self._retired:
            self._on_change()
        if has_changed:
            await self._budget.attempt("sending a heartbeat", self._heartbeat_thread.send())

    async def _adjust(self, producer: Producer, state: QueueState | None) -> bool:
        was_stopped = producer.stopped
        has_changed = await producer.adjust(state)
        # The node has begun to stop meanwhile, and has emitted `QueueStopped` for each queue.
        if has_changed and not self._retired:
            kind = QueueStopped if producer.stopped else QueueStarted if was_stopped else QueueAdjusted
            _emit(kind, producer)
        return has_changed

    async def _replace(self, ended: list[Producer], new: dict[str, Producer]) -> None:
        if self._retired:
            return
        remaining = {queue: producer for queue, producer in self.producers.items() if producer not in ended}
        self.producers = remaining | new
        for producer in ended:
            await producer.stop()
            await self._delete_rows(producer)
        if new:
            try:
                # Before they fetch: the jobs of a producer without a row are not rescued by heartbeat.
                async with asyncio.timeout(self._timeout):
                    await self._heartbeat_thread.send()
            except BaseException:
                self.producers = remaining
                # The rows may have been written all the same.
                await self._delete_rows(*new.values())
                raise
        if self._retired:
            # The node began to stop meanwhile, and stops only the producers that it found.
            await self._delete_rows(*new.values())
            return
        for producer in new.values():
            # During the start of the one before, the node may have begun to stop. It does not wait for this.
            if self._retired:
                return
            # In the context in which the node was started, not in that of a request or a job that
            # started the queue.
            await producer.start(self._context.copy())
            _emit(QueueStarted, producer)

    async def _delete_rows(self, *producers: Producer) -> None:
        uuids = [producer.uuid for producer in producers]
        await self._budget.attempt("deleting producers", self._heartbeat_thread.delete_producers(uuids))

    def retire(self) -> None:
        """Fetch no more jobs and start no more queues, as the node stops."""
        is_first, self._retired = not self._retired, True
        for producer in self.producers.values():
            if is_first and not producer.stopped:
                _emit(QueueStopped, producer)
            producer.retire()

    async def wait_for_jobs(self) -> None:
        """Wait until no job runs."""
        for producer in self.producers.values():
            await producer.settled()
        # A task that was cancelled before its first step is done, though its run is still listed.
        while tasks := {run.task for run in self.runs() if run.task and not run.task.done()}:
            await asyncio.wait(tasks)

    def release_jobs(self) -> list[int]:
        """Cancel all jobs to put them back, also those that a fetch still brings; returns their ids."""
        runs = list(self.runs())
        for producer in self.producers.values():
            producer.closed = True
        for run in runs:
            run.release()
        return [run.key[0] for run in runs]

    def abandon_jobs(self) -> None:
        """Put back the jobs that still run, whatever they do."""
        for producer in self.producers.values():
            for run in list(producer.runs):
                producer.abandon(run)

    async def close(self) -> None:
        """Store the last outcomes, and delete the rows of the producers that have none left."""
        await asyncio.gather(*(self._close(producer) for producer in self.producers.values()))

    async def _close(self, producer: Producer) -> None:
        what = f"storing the last outcomes of queue {producer.queue}"
        if await self._budget.attempt(what, producer.finish(), share=0.8):
            await self._delete_rows(producer)
        else:
            count = len(producer.acknowledger)
            logger.error("%s outcomes of queue %s could not be stored", count, producer.queue)


def _emit(event: type[QueueEvent], producer: Producer) -> None:
    producer.telemetry.emit(event, queue=producer.queue, limit=producer.limit, paused=producer.paused)
