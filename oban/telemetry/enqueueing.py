"""Emits `JobsEnqueued`, and runs the wrappers around an insertion of jobs."""

from collections.abc import Awaitable, Sequence
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType

from oban import clock
from oban.models import Job
from oban.telemetry.events import JobsEnqueued
from oban.telemetry.handlers import Telemetry
from oban.telemetry.views import JobView


async def observe_async(
    telemetry: Telemetry, insertion: Awaitable[None], jobs: Sequence[Job], in_transaction: bool
) -> None:
    """Await an insertion within the wrappers, and emit the event."""
    with observed(telemetry, jobs, in_transaction):
        await insertion


def observed(telemetry: Telemetry, jobs: Sequence[Job], in_transaction: bool) -> AbstractContextManager[None]:
    """Run the wrappers around the insertion in the `with` block, and emit the event if it succeeds."""
    return _Observed(telemetry, jobs, in_transaction)


class _Observed:
    # Not a generator with an `ExitStack`, which would take a few microseconds for each job.
    __slots__ = ("_in_transaction", "_jobs", "_started_at", "_telemetry", "_wrapped")

    def __init__(self, telemetry: Telemetry, jobs: Sequence[Job], in_transaction: bool) -> None:
        self._telemetry = telemetry
        self._jobs = jobs
        self._in_transaction = in_transaction
        self._started_at = 0.0
        self._wrapped: AbstractContextManager[object] | None = None

    def __enter__(self) -> None:
        self._started_at = clock.monotonic()
        wrapped = [
            wrapper(self._telemetry, self._jobs, self._in_transaction)
            for wrapper in self._telemetry.enqueue_wrappers
        ]
        if len(wrapped) == 1:
            self._wrapped = wrapped[0]
            self._wrapped.__enter__()
        elif wrapped:
            self._wrapped = stack = ExitStack()
            for each in wrapped:
                stack.enter_context(each)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._wrapped is not None:
            self._wrapped.__exit__(kind, error, traceback)
        if error is None and self._telemetry.wants(JobsEnqueued):
            self._emit()

    def _emit(self) -> None:
        duration = clock.monotonic() - self._started_at
        views = tuple(JobView(job) for job in self._jobs if not job.conflict)
        self._telemetry.emit(
            JobsEnqueued,
            jobs=views,
            duplicates=len(self._jobs) - len(views),
            duration=duration,
            in_transaction=self._in_transaction,
        )
