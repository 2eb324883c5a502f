"""Logs that an attempt starts and how it has ended, and emits the events about both."""

import contextlib
import logging
from datetime import datetime

from oban import clock
from oban.repository.acknowledge import OUTCOMES, Ack
from oban.runner.execution import attempt_log
from oban.runner.execution.run import Run
from oban.telemetry import Event, JobEnded, JobReleased, JobStarted, JobView
from oban.telemetry.errors import type_name
from oban.types import JobState

logger = logging.getLogger("oban.telemetry")


def started(run: Run) -> None:
    """Log that an attempt starts, and emit `JobStarted`. Never raises."""
    attempt_log.started(run)
    telemetry = run.reporting.telemetry
    if telemetry.observes_attempts:
        try:
            view = run.view = JobView(run.job)
            if telemetry.wants(JobStarted):
                telemetry.emit(JobStarted, job=view, queue_time=_queue_time(view))
        # No event is worth a job.
        except BaseException:
            _log_error(JobStarted)


def ended(
    run: Run, ack: Ack, error: BaseException | None = None, *, is_committed: bool | None = None
) -> None:
    """Log how an attempt has ended, and emit its event, unless that was done before. Never raises.

    Args:
        run: The attempt.
        ack: Its outcome.
        error: The exception that decided the outcome, which can be a raised outcome.
        is_committed: Whether the outcome was committed with the job's session, or rolled back because the
            run has lost its job; None if it is still to be stored.
    """
    if run.is_logged:
        return
    run.is_logged = True
    # Once the outcome is committed, the row no longer belongs to the run, and the run may know that already.
    is_lost = run.is_lost if is_committed is None else not is_committed
    state = None if is_lost else _state(run, ack)
    attempt_log.ended(run, ack, state, error, rolled_back=is_committed is False)
    telemetry = run.reporting.telemetry
    # A job that is put back before it has started has had no attempt.
    event: type[Event] = JobReleased if run.started_at is None else JobEnded
    if telemetry.wants(event):
        try:
            if run.started_at is not None:
                _emit_ended(run, ack, state, error, run.started_at)
            elif state is not None:
                telemetry.emit(JobReleased, job=JobView(run.job))
        except BaseException:
            _log_error(event)


def _state(run: Run, ack: Ack) -> JobState:
    return JobState.DISCARDED if ack.outcome == "failed" and run.is_last else OUTCOMES[ack.outcome]


def _emit_ended(
    run: Run, ack: Ack, state: JobState | None, error: BaseException | None, started_at: float
) -> None:
    # A handler can be attached while the attempt runs.
    view = run.view or JobView(run.job)
    run.reporting.telemetry.emit(
        JobEnded,
        job=view,
        outcome=ack.outcome,
        state=state,
        duration=clock.monotonic() - started_at,
        queue_time=_queue_time(view),
        delay=ack.delay,
        error=ack.error,
        error_type=None if error is None else type_name(error),
    )


def _log_error(event: type[Event]) -> None:
    # Handlers of the log can raise anything.
    with contextlib.suppress(BaseException):
        logger.exception("a %s could not be emitted", event.__name__)


def _queue_time(view: JobView) -> float:
    # SQLite stores anything that another program writes.
    if not (isinstance(view.attempted_at, datetime) and isinstance(view.scheduled_at, datetime)):
        return 0.0
    return max(0.0, (view.attempted_at - view.scheduled_at).total_seconds())
