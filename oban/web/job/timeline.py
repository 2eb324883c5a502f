"""What has happened to a job: when it was inserted, each attempt, its end, and when it is due."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from oban.amounts import duration
from oban.error_texts import stored_error_line
from oban.models import Attempt, Job
from oban.progress import Progress
from oban.type_expressions import FIRST_TIME
from oban.types import ENDED_STATES, STATES, JobState
from oban.web.job import stored_values

#: How many attempts are shown unless the address asks for more, and how many at most.
SHOWN, MOST = 20, 500
#: The colours of outcomes and of levels of the log.
_OUTCOMES = {"completed": "good", "failed": "warning", "discarded": "danger", "rescued": "warning"}
_LEVELS = {"WARNING": "warning", "ERROR": "danger", "CRITICAL": "danger"}
#: How many lines of the log of an attempt are shown, the last ones.
_LINES = 200
#: Seconds between two times from which on they count as different.
_DIFFERENT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the log of an attempt. Only `text` is always there."""

    text: str
    at: datetime | None = None
    level: str = ""

    @property
    def clock(self) -> str:
        """The time of the day, in UTC."""
        return "" if self.at is None else f"{self.at:%H:%M:%S}"

    @property
    def shade(self) -> str:
        """The kind of the level, for its colour."""
        return _LEVELS.get(self.level, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that happened to a job, or that will.

    Attributes:
        key: The id of its element, which is the same after a refresh.
        kind: "inserted", "due", "attempt", "error", "executing" or "ended".
        title: What it is, such as "Attempt 2".
        outcome: How an attempt ended, or the state that the job reached.
        at: When it happened.
        took: How long the attempt took, in words.
        share: The part of the longest attempt that this one took, in percent.
        waited: How long the job waited before it, in words.
        node: The node of the attempt.
        summary: The error in one line.
        error: The whole error.
        lines: The log.
        progress: What the attempt has reported last.
        trace: The id of the trace that it belongs to.
        hides: Which parts the user may not see: "errors", "log".
        open: Whether the error and the log are open at first.
    """

    key: str
    kind: str
    title: str
    outcome: str | None = None
    at: datetime | None = None
    took: str | None = None
    seconds: float | None = None
    share: int = 0
    waited: str | None = None
    node: str | None = None
    summary: str | None = None
    error: str | None = None
    lines: Sequence[Line] = ()
    progress: Progress | None = None
    trace: str | None = None
    hides: Sequence[str] = ()
    open: bool = False

    @property
    def is_state(self) -> bool:
        """Whether the outcome is a state of jobs."""
        return self.outcome in STATES

    @property
    def shade(self) -> str:
        """The kind of the outcome, for its colour."""
        return _OUTCOMES.get(self.outcome or "", "")


def steps(job: Job, attempts: Sequence[Attempt], hides: Sequence[str], shown: int) -> tuple[list[Step], int]:
    """The steps of a job, the newest first, and how many earlier attempts are left out."""
    ended = [*_ended_attempts(job, attempts, hides)]
    left_out = max(0, len(ended) - shown)
    ended = ended[left_out:]
    running = [*_executing(job)]
    longest = max((step.seconds or 0.0 for step in (*ended, *running)), default=0.0)
    if longest > 0:
        ended, running = (
            [replace(step, share=round(100 * (step.seconds or 0.0) / longest)) for step in part]
            for part in (ended, running)
        )
    if ended:
        ended[-1] = replace(ended[-1], open=True)
    found = [*_due(job), *running, *_end(job), *reversed(ended), *_inserted(job)]
    return found, left_out


def took(seconds: float) -> str:
    """How long something took, such as "0.250 seconds" and "3 minutes"."""
    return duration(seconds, 3 if seconds < 10 else 0)


def _inserted(job: Job) -> Iterator[Step]:
    inserted, due = stored_values.time(job.inserted_at), stored_values.time(job.scheduled_at)
    waited = None
    is_new = not stored_values.integer(job.attempt)
    if is_new and inserted and due and (delay := (due - inserted).total_seconds()) > _DIFFERENT:
        waited = f"scheduled for {took(delay)} later"
    yield Step(key="inserted", kind="inserted", title="Inserted", at=inserted, waited=waited)


def _due(job: Job) -> Iterator[Step]:
    if job.state in (JobState.SCHEDULED, JobState.RETRYABLE, JobState.AVAILABLE):
        what = "Next attempt" if job.attempt else "First attempt"
        yield Step(
            key="due",
            kind="due",
            title=what,
            at=stored_values.time(job.scheduled_at),
            outcome=job.state.value,
        )


def _end(job: Job) -> Iterator[Step]:
    if job.state in ENDED_STATES:
        at = stored_values.time(getattr(job, f"{job.state.value}_at"))
        title = job.state.value.capitalize()
        yield Step(key="ended", kind="ended", title=title, outcome=job.state.value, at=at)


def _executing(job: Job) -> Iterator[Step]:
    if job.state != JobState.EXECUTING:
        return
    began, due = stored_values.time(job.attempted_at), stored_values.time(job.scheduled_at)
    seconds = None if began is None else max(0.0, (datetime.now(UTC) - began).total_seconds())
    waited = None
    if began is not None and due is not None and due <= began:
        waited = f"waited {took((began - due).total_seconds())} in the queue"
    node = stored_values.texts(job.attempted_by)[:1]
    yield Step(
        key="executing",
        kind="executing",
        title=f"Attempt {stored_values.text(job.attempt)}",
        outcome="executing",
        at=began,
        took=None if seconds is None else took(seconds),
        seconds=seconds,
        waited=waited,
        node=stored_values.text(node[0]) if node else None,
        progress=progress(job),
    )


def progress(job: Job) -> Progress | None:
    """What the last attempt to start has reported."""
    return (
        job.current_progress if isinstance(job.meta, dict) and stored_values.time(job.attempted_at) else None
    )


def _ended_attempts(job: Job, attempts: Sequence[Attempt], hides: Sequence[str]) -> Iterator[Step]:
    """The attempts that have ended, the first one first, also those of which there is only an error."""
    known = {stored_values.integer(attempt.attempt) for attempt in attempts}
    found: list[tuple[datetime, Step]] = []
    before = stored_values.time(job.inserted_at)
    for place, attempt in enumerate(attempts):
        step = _attempt(place, attempt, before, hides)
        before = stored_values.time(attempt.ended_at)
        found.append((before or FIRST_TIME, step))
    for place, entry in enumerate(job.errors if isinstance(job.errors, list) else []):
        document = stored_values.mapping(entry)
        if (number := stored_values.integer(document.get("attempt"))) is None or number not in known:
            step = _error(place, document, entry, number)
            found.append((step.at or FIRST_TIME, step))
    # The order of rows of the same time stays.
    yield from (step for _, step in sorted(found, key=lambda item: item[0]))


def _attempt(place: int, attempt: Attempt, before: datetime | None, hides: Sequence[str]) -> Step:
    began, ended = stored_values.time(attempt.started_at), stored_values.time(attempt.ended_at)
    seconds = None if began is None or ended is None else max(0.0, (ended - began).total_seconds())
    waited = None
    if began is not None and before is not None and began >= before:
        since = "it was inserted" if place == 0 else "the attempt before"
        waited = f"{took((began - before).total_seconds())} after {since}"
    error = None if attempt.error is None else stored_values.text(attempt.error)
    return Step(
        key=f"attempt-{place}",
        kind="attempt",
        title=f"Attempt {stored_values.text(attempt.attempt)}",
        outcome=stored_values.text(attempt.outcome),
        at=began or ended,
        took=None if seconds is None else took(seconds),
        seconds=seconds,
        waited=waited,
        node=None if attempt.node is None else stored_values.text(attempt.node),
        summary=None if error is None else stored_error_line(error),
        error=error,
        lines=[*_lines(attempt.log)],
        progress=Progress.parse(attempt.progress),
        trace=None if attempt.trace is None else stored_values.text(attempt.trace),
        hides=hides,
    )


def _error(place: int, document: Mapping[str, Any], entry: Any, number: int | None) -> Step:
    error = stored_values.text(document.get("error") if document else entry)
    return Step(
        key=f"error-{place}",
        kind="error",
        title="Error" if number is None else f"Attempt {number}",
        outcome="failed",
        at=_parsed(document.get("at")),
        summary=stored_error_line(error),
        error=error,
    )


def _lines(log: Any) -> Iterator[Line]:
    for entry in log[-_LINES:] if isinstance(log, list) else []:
        if isinstance(entry, dict):
            level, shown = (stored_values.text(entry.get(key, "")) for key in ("level", "text"))
            yield Line(text=shown, at=_parsed(entry.get("at")), level=level)
        else:
            yield Line(text=stored_values.text(entry))


def _parsed(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
        return None if found is None else found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
