"""`Run`: one execution of a job on this node, from its fetch to its outcome."""

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from oban.models import Job
from oban.repository.runs import RunKey

logger = logging.getLogger("oban.executor")


class _EndedRun(NamedTuple):
    """What `job.cancelled()` asks once the run has ended."""

    cancelled: bool


_ENDED = (_EndedRun(False), _EndedRun(True))


class Run:
    """One execution of a job on this node. `owner` is the uuid of the producer that fetched the job."""

    __slots__ = (
        *("_cancelled", "job", "key", "max_attempts", "on_cancel", "releasing", "snoozed"),
        *("task", "timed_out", "worker"),
    )

    def __init__(self, job: Job, owner: str) -> None:
        self.job = job
        # All that is needed later is read here, because the worker can change the instance, and an update
        # can load a later attempt into it. It is read from the dict because mapped attributes are slow.
        values = job.__dict__
        #: The run in the database: its outcome counts only while the row still has this attempt and owner.
        self.key: RunKey = (values["id"], values["attempt"], owner)
        #: The name of the worker.
        self.worker: str = values["worker"]
        self.max_attempts: int = values["max_attempts"]
        meta = values["meta"]
        self.snoozed = meta.get("snoozed") if isinstance(meta, dict) else None
        self._cancelled = False
        #: Called when `cancelled` becomes true, in the thread that sets it.
        self.on_cancel: Callable[[], None] | None = None
        #: Whether the node stops. If so, a job whose task is cancelled is put back.
        self.releasing = False
        #: The timeout in seconds, once a job that cannot be interrupted has exceeded it.
        self.timed_out: float | None = None
        self.task: asyncio.Task[None] | None = None
        values["_run"] = self

    @property
    def cancelled(self) -> bool:
        """What `job.cancelled()` returns: whether the run should stop.

        True once the row no longer belongs to the run, the timeout has passed, or the node stops.
        """
        return self._cancelled

    @cancelled.setter
    def cancelled(self, value: bool) -> None:
        self._cancelled = value
        if value and self.on_cancel is not None:
            self.on_cancel()

    def time_out(self, timeout: float) -> None:
        """Tell a job that cannot be interrupted that its timeout has passed."""
        self.timed_out = timeout
        self.cancelled = True
        logger.error("job %s: %s; it continues in its thread", self.key[0], self.timeout_message(timeout))

    def timeout_message(self, timeout: float) -> str:
        """The error of a run that has exceeded its timeout."""
        return f"TimeoutError: {self.worker} timed out after {timeout:g} s"

    def release(self) -> None:
        """Interrupt the job because the node stops. It is put back."""
        self.cancelled = self.releasing = True
        if self.task is not None:
            self.task.cancel()

    def end(self) -> None:
        """Break the reference cycles with the job and the task, so that no garbage collection is needed."""
        self.job.__dict__["_run"] = _ENDED[self.cancelled]
        self.task = self.on_cancel = None
