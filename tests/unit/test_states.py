"""States that users assign: an enum member and a string are the same, and other values are refused."""

import enum
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import inspect
from sqlalchemy.orm import make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value

from oban import Job, JobState, clock
from oban.errors import InvalidJob, InvalidTarget
from oban.repository.insert import collect_jobs


class Theirs(str, enum.Enum):  # noqa: UP042 - its members have another hash than those of a StrEnum
    """States in an application's own enum."""

    CANCELLED = "cancelled"


@pytest.mark.parametrize("value", ["cancelled", JobState.CANCELLED, Theirs.CANCELLED])
def test_an_assigned_state_is_a_member_of_the_enum(value: Any) -> None:
    job = Job(worker="app.W")
    job.state = value
    assert job.state is JobState.CANCELLED
    assert job.cancelled()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("cancelld", "state 'cancelld' is not a state; did you mean cancelled?"),
        ("Available", "state 'Available' is not a state; did you mean available?"),
        ("RETRYABLE", "state 'RETRYABLE' is not a state; did you mean retryable?"),
        ("", "state '' is not a state; known are available, cancelled,"),
        ("x" * 10_000, "…"),
        (None, "state must be a JobState or its value, not NoneType"),
        (3, "state must be a JobState or its value, not int"),
        (["available"], "state must be a JobState or its value, not list"),
        (JobState, "state must be a JobState or its value, not EnumType"),
    ],
)
def test_an_unknown_state_is_refused_when_it_is_assigned(value: Any, problem: str) -> None:
    job = Job(worker="app.W")
    with pytest.raises(InvalidJob) as raised:
        job.state = value
    assert problem in str(raised.value)
    assert len(str(raised.value)) < 500
    assert job.state is JobState.AVAILABLE


@pytest.mark.parametrize("value", ["available", JobState.AVAILABLE])
@pytest.mark.parametrize("is_first", [True, False])
def test_an_available_job_with_a_future_time_is_scheduled(value: Any, is_first: bool) -> None:
    job = Job(worker="app.W")
    if is_first:
        job.state = value
    job.scheduled_at = clock.now() + timedelta(hours=1)
    assert job.state is JobState.SCHEDULED


def test_a_state_is_no_argument_of_a_job() -> None:
    with pytest.raises(InvalidJob, match="state cannot be set"):
        Job(worker="app.W", state="suspended")  # type: ignore[call-arg]


REFUSED: list[tuple[str, Any]] = [
    ("id", 5),
    ("attempt", 1),
    ("errors", [{"attempt": 1, "at": "now", "error": "x"}]),
    ("attempted_by", ["node", "owner"]),
    *((f"{name}_at", clock.now()) for name in ("inserted", "attempted", "cancelled", "completed")),
    ("discarded_at", clock.now()),
    *(("state", state) for state in ("executing", "retryable", "completed", "discarded", "cancelled")),
    ("state", JobState.CANCELLED),
    ("state", "scheduled"),
]


@pytest.mark.parametrize(("field", "value"), REFUSED)
def test_a_value_that_enqueue_would_not_store_is_refused(field: str, value: Any) -> None:
    job = Job(worker="app.W")
    setattr(job, field, value)
    with pytest.raises(InvalidJob) as raised:
        collect_jobs([Job(worker="app.W"), job])
    assert raised.value.field == field


@pytest.mark.parametrize("field", ["errors", "attempted_by"])
def test_a_list_that_was_changed_in_place_is_refused(field: str) -> None:
    job = Job(worker="app.W")
    getattr(job, field).append("x")
    with pytest.raises(InvalidJob, match=f"^{field} of a new job cannot be set"):
        collect_jobs(job)


def test_the_values_that_a_new_job_has_anyway_can_be_set() -> None:
    job = Job(worker="app.W", schedule_in=60)
    job.attempt, job.errors, job.attempted_by, job.state = 0, [], [], JobState.SCHEDULED
    job.completed_at = None
    job.priority = 3
    assert inspect(job).transient
    assert collect_jobs(job) == [job]


def test_a_stored_job_is_refused_as_such_whatever_was_assigned() -> None:
    job = Job(worker="app.W")
    job.id = 1
    make_transient_to_detached(job)
    with pytest.raises(InvalidTarget, match="job 1 was enqueued before"):
        collect_jobs(job)
    set_committed_value(job, "state", JobState.CANCELLED)
    with pytest.raises(InvalidTarget, match="job 1 was enqueued before"):
        collect_jobs(job)
