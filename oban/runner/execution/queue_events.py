"""Emits the events about a queue: jobs fetched, outcomes stored, and faulty rows and outcomes."""

from oban import clock, dialects
from oban.repository.acknowledge import Ack
from oban.repository.runs import RunKey
from oban.runner.execution import attempt_log
from oban.telemetry import JobsFetched, JobUnreadable, OutcomeReplaced, OutcomesStored, Telemetry
from oban.telemetry.errors import error_fields, type_name


def turn_ended(
    telemetry: Telemetry, queue: str, demand: int, fetched: int, stored: int, started_at: float
) -> None:
    """Emit the events about a turn that began at `started_at`, by the monotonic clock."""
    if demand and telemetry.wants(JobsFetched):
        duration = clock.monotonic() - started_at
        telemetry.emit(JobsFetched, queue=queue, count=fetched, demand=demand, duration=duration)
    if stored:
        outcomes_stored(telemetry, queue, stored, started_at)


def outcomes_stored(telemetry: Telemetry, queue: str, count: int, started_at: float) -> None:
    """Emit that outcomes were stored in a transaction that began at `started_at`."""
    if telemetry.wants(OutcomesStored):
        telemetry.emit(OutcomesStored, queue=queue, count=count, duration=clock.monotonic() - started_at)


def unreadable(telemetry: Telemetry, queue: str, key: RunKey, error: Exception) -> Ack:
    """Log and emit that the row of a fetched job cannot be read; returns the outcome, which discards it."""
    cause = dialects.driver_error(error)
    reason = f"the row cannot be read: {type(cause).__name__}: {cause}"
    attempt_log.unreadable(key, queue, telemetry.node, reason, error)
    job_id, attempt, _ = key
    telemetry.emit(
        JobUnreadable,
        job_id=job_id,
        queue=queue,
        attempt=attempt,
        error=reason,
        error_type=type_name(error),
    )
    return Ack(*key, "discarded", error=reason)


def replaced(telemetry: Telemetry, ack: Ack, stored: Ack, error: Exception) -> None:
    """Emit that the database has refused an outcome, so that another one was stored."""
    if telemetry.wants(OutcomeReplaced):
        telemetry.emit(
            OutcomeReplaced,
            job_id=ack.id,
            attempt=ack.attempt,
            outcome=ack.outcome,
            stored=stored.outcome,
            **error_fields(error),
        )
