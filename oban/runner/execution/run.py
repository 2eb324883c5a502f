"""`Run`: one execution of a job on this node, from its fetch to its outcome."""

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from oban.models import Job
from oban.repository.runs import RunKey

logger = logging.getLogger("oban.executor")


class _EndedRun(NamedTuple):
    """All that a job needs of its run when that has ended."""

    cancelled: bool


_ENDED = (_EndedRun(False), _EndedRun(True))


class Run:
    """One execution of a job on this node, which the producer with the uuid `owner` has fetched."""

    __slots__ = (
        *("_cancelled", "job", "key", "max_attempts", "on_cancel", "releasing", "snoozed"),
        *("task", "timed_out", "worker"),
    )

    def __init__(self, job: Job, owner: str) -> None:
        self.job = job
        # Read here, because the worker can change the instance, and an update can load a later attempt into
        # it. Read from the dict, because SQLAlchemy's attributes are slow.
        values = job.__dict__
        #: Identifies the run in the database.
        self.key: RunKey = (values["id"], values["attempt"], owner)
        #: The name of the worker.
        self.worker: str = values["worker"]
        self.max_attempts: int = values["max_attempts"]
        meta = values["meta"]
        self.snoozed = meta.get("snoozed") if isinstance(meta, dict) else None
        self._cancelled = False
        #: Called when `cancelled` becomes true, in the thread that sets it.
        self.on_cancel: Callable[[], None] | None = None
        #: Whether the node stops, so that a job whose task is cancelled is put back.
        self.releasing = False
        #: The timeout in seconds that has passed while the job cannot be interrupted.
        self.timed_out: float | None = None
        self.task: asyncio.Task[None] | None = None
        values["_run"] = self

    @property
    def cancelled(self) -> bool:
        """What `job.cancelled()` returns."""
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
        logger.error("%s; it goes on in its thread: job %s", self.timeout_message(timeout), self.key[0])

    def timeout_message(self, timeout: float) -> str:
        """The error of a run that takes longer than its timeout."""
        return f"TimeoutError: {self.worker} timed out after {timeout:g} s"

    def release(self) -> None:
        """Interrupt the job, to be put back, because the node stops."""
        self.cancelled = self.releasing = True
        if self.task is not None:
            self.task.cancel()

    def end(self) -> None:
        """Break the reference cycles with the job and the task, so that no garbage collection is needed."""
        self.job.__dict__["_run"] = _ENDED[self.cancelled]
        self.task = self.on_cancel = None
