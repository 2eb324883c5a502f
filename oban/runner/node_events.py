"""Logs that a node starts and stops, and emits the events about it."""

import logging
from typing import TYPE_CHECKING

from oban import clock
from oban.telemetry import NodeStarted, NodeStopped, NodeStopping

if TYPE_CHECKING:
    from oban.runner.runner import Runner

logger = logging.getLogger("oban.runner")


class NodeEvents:
    """The records and events of one runner. A runner that did not start to its end emits none."""

    def __init__(self, runner: "Runner") -> None:
        self._runner = runner
        self._telemetry = runner.database.telemetry
        self._made_at = clock.monotonic()
        self._is_started = False
        self._stopping_at: float | None = None
        self._released: tuple[int, ...] = ()

    def started(self) -> None:
        """Note that every part has started."""
        runner = self._runner
        queues = ", ".join(
            f"{producer.queue}:{producer.limit}{' (paused)' if producer.paused else ''}"
            for producer in runner.producers.values()
        )
        # Stored settings can have stopped all of them.
        logger.info("node %s runs %s", runner.options.node, queues or "no queues for now")
        self._is_started = True
        if self._telemetry.wants(NodeStarted):
            duration = clock.monotonic() - self._made_at
            self._telemetry.emit(NodeStarted, queues=tuple(runner.producers), duration=duration)

    def stopping(self) -> None:
        """Note that the node begins to stop."""
        self._stopping_at = clock.monotonic()
        if self._is_started and self._telemetry.wants(NodeStopping):
            self._telemetry.emit(NodeStopping, running=sum(1 for _ in self._runner.queues.runs()))

    def released(self, ids: list[int]) -> None:
        """Note that jobs did not end in the grace period."""
        if ids:
            self._released += tuple(ids)
            listed = ", ".join(map(str, ids))
            logger.warning("put back jobs that did not finish in the grace period: %s", listed)

    def stopped(self) -> None:
        """Note that every part has stopped."""
        self._emit_stopped(is_lost=False)

    def lost(self) -> None:
        """Note that the event loop has ended without a stop. Can be called from any thread."""
        node = self._runner.options.node
        logger.error("the event loop of node %s has ended without a stop: its jobs are lost", node)
        self._emit_stopped(is_lost=True)

    def _emit_stopped(self, *, is_lost: bool) -> None:
        if not self._is_started:
            return
        self._is_started = False
        duration = 0.0 if self._stopping_at is None else clock.monotonic() - self._stopping_at
        self._telemetry.emit(NodeStopped, duration=duration, released=self._released, is_lost=is_lost)
