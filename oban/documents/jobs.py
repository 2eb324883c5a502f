"""A job, its attempts and what was done to jobs, as documents."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

import orjson

from oban import display
from oban.models import Attempt, Job

#: pydantic writes documents that are up to 255 levels deep, with the job around them.
_MAX_DEPTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDocument:
    """A job. What another program has stored and JSON has no value for is a string, or null for a number."""

    id: int
    state: str | None
    queue: str
    worker: str
    args: Any
    meta: Any
    tags: list[str]
    priority: int | None
    attempt: int | None
    max_attempts: int | None
    attempted_by: list[str]
    errors: Any
    inserted_at: datetime | None
    scheduled_at: datetime | None
    attempted_at: datetime | None
    completed_at: datetime | None
    cancelled_at: datetime | None
    discarded_at: datetime | None
    unique_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptDocument:
    """An attempt that has ended."""

    attempt: int | None
    outcome: str
    node: str | None
    producer: str | None
    started_at: datetime | None
    ended_at: datetime | None
    error: str | None
    #: The last lines of its log, each with the keys `at`, `level` and `text`.
    log: Any
    progress: Any
    #: The id of the trace that it belongs to.
    trace: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDetails(JobDocument):
    """A job with its history."""

    #: Those that have ended, the first one first.
    attempts: list[AttemptDocument]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftAlone:
    """A job that was not changed, and why."""

    id: int
    #: "state", "attempts", "missing" or "conflict".
    reason: str
    #: Its state, if that is why.
    state: str | None = None
    #: The job that is in the way of a unique job.
    other_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What was done to jobs, or would be."""

    dry_run: bool
    #: How many jobs were changed, or would be.
    changed: int
    #: In a dry run, by state: how many jobs would be changed, and how many would be left alone.
    would_change: dict[str, int] | None = None
    would_leave: dict[str, int] | None = None
    #: Of the jobs whose ids were passed, those that were left alone; and all that were in conflict.
    left_alone: list[LeftAlone] = field(default_factory=list)


_FIELDS = [each.name for each in fields(JobDocument)]
_DOCUMENTS = ("args", "meta", "errors")
_NUMBERS = ("priority", "attempt", "max_attempts")
_TEXTS = ("queue", "worker")
_LISTS = ("tags", "attempted_by")


def job_document(job: Job) -> JobDocument:
    """A job as a document, whatever its row contains."""
    return JobDocument(**{name: _value(name, getattr(job, name)) for name in _FIELDS})


def job_details(job: Job, attempts: Sequence[Attempt]) -> JobDetails:
    """A job with its history as a document."""
    values = {name: _value(name, getattr(job, name)) for name in _FIELDS}
    return JobDetails(**values, attempts=[_attempt(each) for each in attempts])


def _attempt(attempt: Attempt) -> AttemptDocument:
    optional = {name: getattr(attempt, name) for name in ("node", "producer", "error", "trace")}
    return AttemptDocument(
        attempt=attempt.attempt if isinstance(attempt.attempt, int) else None,
        outcome=text(attempt.outcome),
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        log=json_able(attempt.log),
        progress=json_able(attempt.progress),
        **{name: None if value is None else text(value) for name, value in optional.items()},
    )


def _value(name: str, value: Any) -> Any:
    if name in _DOCUMENTS:
        return json_able(value)
    if name in _NUMBERS:
        return value if isinstance(value, int) else None
    if name in _TEXTS:
        return text(value)
    if name in _LISTS:
        return texts(value)
    if name == "unique_key":
        return None if value is None else text(value)
    return value


def text(value: object) -> str:
    """The value of a column of texts; SQLite can have any other value in it."""
    return _encodable(value) if isinstance(value, str) else display.shown(value)


def texts(value: object) -> list[str]:
    """The value of a column of lists of texts, which can have NULLs and other lists in it."""
    return [text(item) for item in value] if isinstance(value, list) else []


def json_able(value: Any) -> Any:
    """A stored document as JSON that every parser reads."""
    try:
        orjson.dumps(value)
    # Surrogates, too many levels, or the `Undecodable` in place of what is not JSON.
    except (TypeError, ValueError, RecursionError):
        return _json_able(value, _MAX_DEPTH)
    return value


def json_text(value: Any, *, indent: bool = False) -> str:
    """What `json_able` has returned, as text; with `indent`, in lines."""
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else None).decode()
    except TypeError:
        # An integer of more than 64 bits, which `jsonb` can have.
        return json.dumps(value, ensure_ascii=False, indent=2 if indent else None)


def _json_able(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _encodable(value)
    if value is None or isinstance(value, (int, float)):
        return value
    if depth == 0 or not isinstance(value, (list, Mapping)):
        return _encodable(display.shown(value))
    if isinstance(value, list):
        return [_json_able(item, depth - 1) for item in value]
    return {_encodable(str(key)): _json_able(item, depth - 1) for key, item in value.items()}


def _encodable(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode()
