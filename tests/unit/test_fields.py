"""Values of fields are checked alike when a job is made, set or updated, and when a worker is declared."""

import enum
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from oban import Job, Worker, fields, suggestions
from oban.clock import Clock, use
from oban.errors import InvalidJob
from tests.support.bad_fields import BAD_FIELD_IDS, BAD_FIELDS

NOON = datetime(2024, 6, 1, 12, 0, tzinfo=UTC)
SETTABLE = tuple(fields.CHECKS)


class Queue(enum.StrEnum):
    MEDIA = "media"


class Defaults(Worker, queue="media", priority=4, max_attempts=7, tags=["B", "a"], meta={"team": [1]}):
    async def process(self, job: Job) -> None: ...


GOOD: list[tuple[str, Any, Any]] = [
    ("queue", "default", "default"),
    ("queue", "Media_2.high-prio", "Media_2.high-prio"),
    ("queue", "0", "0"),
    ("queue", "_", "_"),
    ("queue", "x" * 128, "x" * 128),
    ("queue", Queue.MEDIA, "media"),
    ("worker", "app.workers.Resize", "app.workers.Resize"),
    ("worker", "MyApp.Worker é", "MyApp.Worker é"),
    ("worker", "x" * 255, "x" * 255),
    ("priority", 0, 0),
    ("priority", 9, 9),
    ("max_attempts", 1, 1),
    ("max_attempts", 32767, 32767),
    ("args", {}, {}),
    ("args", {"a": (1, 2)}, {"a": [1, 2]}),
    ("meta", {"a": None}, {"a": None}),
    ("tags", [], []),
    ("tags", ["b", "a"], ["a", "b"]),
    ("tags", ("  Urgent ", "urgent", "URGENT\n"), ["urgent"]),
    ("tags", {"x"}, ["x"]),
    ("tags", frozenset({"x"}), ["x"]),
    ("tags", ["", "  ", "a"], ["a"]),
    ("tags", ["Ärger", "zoo"], ["zoo", "ärger"]),
    ("tags", ["x" * 255], ["x" * 255]),
    ("tags", [str(n % 100) for n in range(300)], sorted(str(n) for n in range(100))),
    ("scheduled_at", NOON, NOON),
    ("scheduled_at", NOON.astimezone(timezone(timedelta(hours=-9, minutes=-30))), NOON),
    ("scheduled_at", datetime(2024, 6, 1, 8, 0, tzinfo=ZoneInfo("America/New_York")), NOON),
    ("scheduled_at", datetime.max.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
]
GOOD_IDS = [f"{field}-{n}" for n, (field, _, _) in enumerate(GOOD)]


@pytest.mark.parametrize(("field", "value", "stored"), GOOD, ids=GOOD_IDS)
def test_a_good_value_is_normalised_alike_everywhere(field: str, value: Any, stored: Any) -> None:
    arguments = {"worker": "app.W", field: value}
    made = Job(**arguments)
    was_set = Job(worker="app.W")
    setattr(was_set, field, value)
    for stored_value in (getattr(made, field), getattr(was_set, field), fields.check({field: value})[field]):
        assert stored_value == stored
        # A plain string and UTC, so the database returns an equal value.
        assert type(stored_value) is type(stored)
        if isinstance(stored_value, datetime):
            assert stored_value.utcoffset() == timedelta(0)


@pytest.mark.parametrize(("values", "message"), BAD_FIELDS, ids=BAD_FIELD_IDS)
def test_a_bad_value_is_refused_in_a_new_job(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidJob, match=message) as caught:
        Defaults.new(**values)
    # For a value that is not JSON, the field is the path to it.
    assert caught.value.field.split("[")[0] in values
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("values", "message"),
    [item for item in BAD_FIELDS if len(item[0]) == 1 and next(iter(item[0])) in SETTABLE],
    ids=[id_ for id_, item in zip(BAD_FIELD_IDS, BAD_FIELDS, strict=True) if id_.split("-")[0] in SETTABLE],
)
def test_a_bad_value_is_refused_when_it_is_set(values: dict[str, Any], message: str) -> None:
    job = Defaults.new(scheduled_at=NOON)
    ((field, value),) = values.items()
    before = getattr(job, field)
    with pytest.raises(InvalidJob, match=message):
        setattr(job, field, value)
    assert getattr(job, field) == before


def test_a_job_needs_a_worker() -> None:
    for worker in ("", " \t", None, 5, b"w", "x" * 256, "a\x00", "\ud800"):
        with pytest.raises(InvalidJob, match=r"^worker "):
            Job(worker=worker)  # type: ignore[arg-type]
    with pytest.raises(InvalidJob, match="worker is missing"):
        Job(args={})  # type: ignore[call-arg]


def test_a_new_job_has_the_documented_defaults() -> None:
    job = Job(worker="app.W")
    assert (job.queue, job.priority, job.max_attempts, job.state) == ("default", 0, 20, "available")
    assert (job.args, job.meta, job.tags, job.errors, job.attempt) == ({}, {}, [], [], 0)
    assert job.args is not Job(worker="app.W").args


def test_the_options_of_a_worker_are_defaults_that_jobs_do_not_share() -> None:
    first, second = Defaults.new(), Defaults.new({"a": 1}, priority=0, tags=[], meta={})
    assert (first.queue, first.priority, first.max_attempts) == ("media", 4, 7)
    assert (first.tags, first.meta) == (["a", "b"], {"team": [1]})
    assert (second.queue, second.priority, second.tags, second.meta) == ("media", 0, [], {})
    first.meta["team"].append(2)
    first.tags.append("c")
    assert Defaults.new().meta == {"team": [1]}
    assert Defaults.new().tags == ["a", "b"]


class Stopped(Clock):
    def now(self) -> datetime:
        return NOON


@pytest.mark.parametrize(
    ("when", "state", "at"),
    [
        ({"schedule_in": 90}, "scheduled", NOON + timedelta(seconds=90)),
        ({"schedule_in": 0.25}, "scheduled", NOON + timedelta(milliseconds=250)),
        ({"schedule_in": timedelta(days=2)}, "scheduled", NOON + timedelta(days=2)),
        ({"schedule_in": 0}, "available", NOON),
        ({"schedule_in": timedelta(0)}, "available", NOON),
        ({"scheduled_at": NOON + timedelta(microseconds=1)}, "scheduled", NOON + timedelta(microseconds=1)),
        ({"scheduled_at": NOON}, "available", NOON),
        ({"scheduled_at": NOON - timedelta(days=9)}, "available", NOON - timedelta(days=9)),
    ],
)
def test_a_job_with_a_future_time_is_scheduled(when: dict[str, Any], state: str, at: datetime) -> None:
    with use(Stopped()):
        job = Job(worker="app.W", **when)
    assert (job.state, job.scheduled_at) == (state, at)


@pytest.mark.parametrize(
    ("value", "seconds"), [(0, 0.0), (1, 1.0), (0.5, 0.5), (timedelta(minutes=2), 120.0), (-0.0, 0.0)]
)
def test_a_delay_is_seconds_or_a_timedelta(value: Any, seconds: float) -> None:
    assert fields.delay(value) == seconds
    assert type(fields.delay(value)) is float


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), 1e300, 10**18, timedelta.max], ids=["int", "-int", "float", "18", "max"]
)
def test_a_delay_beyond_all_calendars_is_refused(value: Any) -> None:
    with pytest.raises(InvalidJob, match=r"^schedule_in "):
        fields.delay(value)


@pytest.mark.parametrize(
    ("value", "offset"), [(datetime.min, 1), (datetime.max, -1)], ids=["before year 1", "after year 9999"]
)
def test_a_time_outside_of_the_years_of_utc_is_refused(value: datetime, offset: int) -> None:
    beyond = value.replace(tzinfo=timezone(timedelta(hours=offset)))
    with pytest.raises(InvalidJob, match=r"^scheduled_at is outside of the years 1 to 9999"):
        fields.utc(beyond)


class Subclass(datetime):
    """As pendulum's and pandas' times are."""


class NotATime(datetime):
    """As pandas.NaT: a datetime whose methods raise, or return another one that is no time either."""

    def utcoffset(self) -> Any:
        raise ValueError("NotATime does not support utcoffset")


class NoUTC(datetime):
    def astimezone(self, tz: Any = None) -> Any:
        return None


class Unprintable(datetime):
    def isoformat(self, *_: Any) -> Any:
        raise RuntimeError("no")

    __str__ = __repr__ = isoformat


class Offsets(tzinfo):
    def utcoffset(self, dt: Any) -> Any:
        return "an hour"

    dst = tzname = utcoffset


def test_a_subclass_of_datetime_becomes_a_plain_one() -> None:
    moment = fields.utc(Subclass(2024, 6, 1, 12, tzinfo=UTC))
    assert (moment, type(moment)) == (NOON, datetime)
    assert type(Job(worker="app.W", scheduled_at=Subclass(2024, 6, 1, tzinfo=UTC)).scheduled_at) is datetime


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (NotATime(1, 1, 1), "is a NotATime that cannot be converted to UTC"),
        (NoUTC(2024, 6, 1, tzinfo=UTC), "is a NoUTC that cannot be converted to UTC"),
        (Unprintable(2024, 6, 1), "is a Unprintable that cannot be converted to UTC"),
        (Unprintable.min.replace(tzinfo=timezone(timedelta(hours=1))), "is outside of the years"),
        (datetime(2024, 6, 1, tzinfo=Offsets()), "is a datetime that cannot be converted to UTC"),
        (Subclass(2024, 6, 1), "must carry a time zone; 2024-06-01T00:00:00 does not"),
    ],
    ids=lambda item: type(item).__name__,
)
def test_a_time_that_does_not_behave_as_one_is_refused(value: Any, problem: str) -> None:
    for call in (
        lambda: fields.utc(value),
        lambda: Job(worker="app.W", scheduled_at=value),
        lambda: setattr(Job(worker="app.W"), "scheduled_at", value),
        lambda: Defaults.new(scheduled_at=value),
    ):
        with pytest.raises(InvalidJob, match=f"^scheduled_at {problem}"):
            call()


def test_a_suggestion_names_the_nearest_field_or_all() -> None:
    assert suggestions.suggestion("prioritty", list(SETTABLE)) == "; did you mean priority?"
    assert suggestions.suggestion("zzz", ["b", "a"]) == "; known are a, b"
    assert suggestions.suggestion(None, ["b", "a"]) == "; known are a, b"
