"""The log records of attempts on `oban.executor`: one when an attempt starts, and one when it has ended."""

import contextlib
import logging
from typing import Any

from oban import clock, error_texts
from oban.repository.acknowledge import Ack
from oban.repository.runs import RunKey
from oban.runner.execution.outcome import is_outcome
from oban.runner.execution.run import Run
from oban.running_job import running
from oban.types import JobState

logger = logging.getLogger("oban.executor")

#: The level of an ending by the state that the job gets.
_LEVELS = {
    JobState.COMPLETED: logging.DEBUG,
    JobState.AVAILABLE: logging.INFO,
    JobState.CANCELLED: logging.INFO,
    JobState.SCHEDULED: logging.INFO,
    JobState.RETRYABLE: logging.WARNING,
    JobState.DISCARDED: logging.ERROR,
}


def fields(run: Run, state: str | None = "executing") -> dict[str, Any]:
    """The `extra` of a record about an attempt, with the state that its job has now."""
    job_id, attempt, _ = run.key
    values = {
        "job_id": job_id,
        "worker": error_texts.log_safe(run.worker),
        "queue": error_texts.log_safe(run.queue),
        "attempt": _number(attempt),
        "max_attempts": _number(run.max_attempts),
        "node": run.node,
        "state": state,
    }
    if run.started_at is not None:
        values["duration"] = round(clock.monotonic() - run.started_at, 6)
    return values


def _number(value: Any) -> Any:
    # SQLite stores anything that another program writes.
    return value if isinstance(value, (int, float)) else error_texts.log_safe(value)


def current_fields() -> dict[str, Any]:
    """The `extra` of a record about the attempt that runs in this context; empty outside of one."""
    job = running.get()
    run = None if job is None else job.__dict__.get("_run")
    return fields(run) if isinstance(run, Run) else {}


def started(run: Run) -> None:
    """Log that an attempt starts."""
    if logger.isEnabledFor(logging.DEBUG):
        _log(logging.DEBUG, "job %s (%s) started, attempt %s of %s", fields(run))


def timed_out(run: Run, timeout: float) -> None:
    """Log that an attempt that cannot be interrupted has exceeded its timeout. It has not ended yet."""
    text = "job %s (%s) continues in its thread, attempt %s of %s, after its timeout of %s"
    _log(logging.INFO, text, fields(run), _seconds(timeout))


def ignored(run: Run, method: str, instead: str, error: BaseException) -> None:
    """Log what a method of the worker raised, or why its result cannot be used; the attempt continues."""
    text = f"job %s (%s), attempt %s of %s, {instead}, because {method}() of the worker failed: %s"
    error = _redacted(run, error)
    is_printable = not error_texts.error_text(error).endswith(error_texts.UNPRINTABLE)
    shown = error if is_printable else None
    _log(logging.ERROR, text, fields(run), error_texts.error_line(error), error=shown)


def ended(
    run: Run, ack: Ack, state: JobState | None, error: BaseException | None, *, rolled_back: bool
) -> None:
    """Log how an attempt has ended. Never raises.

    Args:
        run: The attempt.
        ack: Its outcome.
        state: The state that the job gets; None if the run has lost its job.
        error: The exception that decided the outcome, which can be a raised outcome.
        rolled_back: Whether the transaction of the job's session was rolled back, because the job is lost.
    """
    if state is None:
        _log_lost(run, ack, error, rolled_back=rolled_back)
        return
    level = _LEVELS[state]
    if not logger.isEnabledFor(level):
        return
    values = fields(run, state.value)
    delay, reason = _seconds(ack.delay or 0), _reason(run, ack, error)
    error = _exception(run, ack, error)
    match state:
        case JobState.COMPLETED:
            text = "job %s (%s) completed, attempt %s of %s, in %s"
            _log(level, text, values, _seconds(values.get("duration", 0)))
        case JobState.AVAILABLE:
            text = "job %s (%s) was put back, attempt %s of %s does not count, because the node stops"
            _log(level, text, values)
        case JobState.CANCELLED:
            _log(level, "job %s (%s) was cancelled, attempt %s of %s: %s", values, reason, error=error)
        case JobState.SCHEDULED if not reason:
            _log(level, "job %s (%s) was snoozed, attempt %s of %s, for %s", values, delay)
        case JobState.SCHEDULED:
            text = "job %s (%s) was snoozed, attempt %s of %s, for %s: %s"
            _log(level, text, values, delay, reason, error=error)
        case JobState.DISCARDED:
            text = "job %s (%s) failed, attempt %s of %s, discarded: %s"
            _log(level, text, values, reason, error=error)
        case _:
            text = "job %s (%s) failed, attempt %s of %s, retrying in %s: %s"
            _log(level, text, values, delay, reason, error=error)


def _log_lost(run: Run, ack: Ack, error: BaseException | None, *, rolled_back: bool) -> None:
    text = "job %s (%s) was cancelled, rescued or deleted while it ran, attempt %s of %s; "
    text += "its writes are rolled back" if rolled_back else "its outcome is ignored"
    # Nobody knows the state that the job has now.
    values, reason = fields(run, None), _reason(run, ack, error)
    is_failure = ack.outcome in ("failed", "discarded")
    level = logging.WARNING if rolled_back or is_failure else logging.INFO
    if reason:
        _log(level, f"{text}: %s", values, reason, error=_exception(run, ack, error))
    else:
        _log(level, text, values)


def unreadable(run: RunKey, queue: str, node: str, reason: str, error: Exception) -> None:
    """Log that a job was fetched and is discarded, because its row cannot be read."""
    job_id, attempt, _ = run
    unknown = {"worker": None, "max_attempts": None}
    known = {"job_id": job_id, "queue": queue, "attempt": attempt, "node": node}
    extra = {**known, **unknown, "state": JobState.DISCARDED.value}
    text = "job %s failed, attempt %s, discarded: %s"
    logger.error(text, job_id, attempt, error_texts.log_safe(reason), exc_info=error, extra=extra)


def _reason(run: Run, ack: Ack, error: BaseException | None) -> str:
    """The exception that decided the outcome, or the reason in the outcome, in one line."""
    if error is None or is_outcome(error):
        return error_texts.first_line(ack.error or "")
    return error_texts.error_line(_redacted(run, error))


def _exception(run: Run, ack: Ack, error: BaseException | None) -> BaseException | None:
    """The exception that a record shows with its traceback."""
    # Other outcomes are raised on purpose, and nothing has failed.
    if error is None or (is_outcome(error) and ack.outcome != "discarded"):
        return None
    # No handler could print an exception that `error_text` cannot.
    text = ack.error or error_texts.error_text(error)
    return None if text.endswith(error_texts.UNPRINTABLE) else _redacted(run, error)


def _redacted(run: Run, error: BaseException) -> BaseException:
    """The exception, or one in its place if it shows redacted values of the job."""
    return error if run.secrets is None else run.secrets.error(error)


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{round(value, 3):g} s"


def _log(
    level: int, text: str, values: dict[str, Any], *more: str, error: BaseException | None = None
) -> None:
    job = [values[name] for name in ("job_id", "worker", "attempt", "max_attempts")]
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    try:
        if error is None or not error_texts.has_surrogates(error):
            logger.log(level, text, *job, *more, exc_info=exc_info, extra=values)
        elif logger.isEnabledFor(level):
            args = (*job, *more)
            record = logger.makeRecord(logger.name, level, __file__, 0, text, args, exc_info, extra=values)
            # Formatters use it instead of the traceback, which a handler could not write to a file.
            record.exc_text = error_texts.error_text(error)
            logger.handle(record)
    # Whatever a handler raises, even SystemExit, must not fail the job or stop the node.
    except BaseException:
        with contextlib.suppress(BaseException):
            logger.log(level, text, *job, *more, extra=values)
