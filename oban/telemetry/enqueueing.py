"""Emits `JobsEnqueued`, and runs the wrappers around an insertion of jobs."""

from collections.abc import Awaitable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

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


@contextmanager
def observed(telemetry: Telemetry, jobs: Sequence[Job], in_transaction: bool) -> Iterator[None]:
    """Run the wrappers around the insertion in the `with` block, and emit the event if it succeeds."""
    # Jobs that the caller had added to the session were enqueued before.
    new = [job for job in jobs if not job._is_persistent]
    started_at = clock.monotonic()
    with ExitStack() as stack:
        for wrapper in telemetry.enqueue_wrappers:
            stack.enter_context(wrapper(telemetry, new, in_transaction))
        yield
    if telemetry.wants(JobsEnqueued):
        duration = clock.monotonic() - started_at
        views = tuple(JobView(job) for job in new if not job.conflict)
        telemetry.emit(
            JobsEnqueued,
            jobs=views,
            duplicates=len(new) - len(views),
            duration=duration,
            in_transaction=in_transaction,
        )
