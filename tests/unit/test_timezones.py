"""Times are aware UTC in Python, whatever the time zone of the machine."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Dialect
from sqlalchemy.dialects import postgresql, sqlite

from oban import Job, clock, fields
from oban.errors import InvalidJob
from oban.types import UTCDateTime, aware

NEW_YORK = ZoneInfo("America/New_York")
DIALECTS = [postgresql.dialect(), sqlite.dialect()]  # type: ignore[no-untyped-call]
MOMENT = datetime(2024, 7, 1, 12, 30, 15, 123456, tzinfo=UTC)


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Kathmandu"], autouse=True)
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The machine's own time zone."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def test_the_fixture_sets_the_zone_of_the_machine(zone: str) -> None:
    seconds = {"UTC": 0, "America/New_York": -5 * 3600, "Asia/Kathmandu": 20700}[zone]
    assert time.timezone == -seconds


@pytest.mark.parametrize("dialect", DIALECTS, ids=["postgresql", "sqlite"])
@pytest.mark.parametrize("moment", [MOMENT, MOMENT.astimezone(NEW_YORK), MOMENT.astimezone()])
def test_a_time_is_stored_as_utc_without_a_zone_and_read_as_utc(moment: datetime, dialect: Dialect) -> None:
    stored = UTCDateTime().process_bind_param(moment, dialect)
    assert stored == datetime(2024, 7, 1, 12, 30, 15, 123456)
    read = aware(stored)
    assert read == MOMENT
    assert read is not None
    assert read.tzinfo is UTC


@pytest.mark.parametrize("dialect", DIALECTS, ids=["postgresql", "sqlite"])
def test_a_time_without_a_zone_is_never_stored(dialect: Dialect) -> None:
    with pytest.raises(ValueError, match="a time must carry a time zone"):
        UTCDateTime().process_bind_param(datetime(2024, 7, 1), dialect)
    assert UTCDateTime().process_bind_param(None, dialect) is None
    assert aware(None) is None


def test_the_clock_is_utc() -> None:
    before = time.time()
    now = clock.now()
    assert now.tzinfo is UTC
    # A datetime has only microseconds.
    assert before - 1e-6 <= now.timestamp() <= time.time()


def test_a_job_stores_the_instant_and_not_the_wall_clock() -> None:
    for moment in (MOMENT, MOMENT.astimezone(NEW_YORK), MOMENT.astimezone()):
        job = Job(worker="app.W", scheduled_at=moment)
        assert job.scheduled_at == MOMENT
        assert job.scheduled_at.tzinfo is UTC
        assert job.state == "available"


def test_a_time_without_a_zone_is_not_taken_for_local_time() -> None:
    for naive in (datetime.now(), datetime(2024, 7, 1)):
        with pytest.raises(InvalidJob, match="scheduled_at must carry a time zone"):
            fields.utc(naive)


def test_the_hour_that_a_clock_repeats_is_two_instants() -> None:
    first = datetime(2024, 11, 3, 1, 30, tzinfo=NEW_YORK, fold=0)
    second = first.replace(fold=1)
    stored = [Job(worker="app.W", scheduled_at=at).scheduled_at for at in (first, second)]
    assert stored == [datetime(2024, 11, 3, 5, 30, tzinfo=UTC), datetime(2024, 11, 3, 6, 30, tzinfo=UTC)]


def test_a_future_time_schedules_a_job_and_a_past_one_does_not() -> None:
    assert Job(worker="app.W", schedule_in=60).state == "scheduled"
    assert Job(worker="app.W", scheduled_at=datetime.now(UTC) + timedelta(minutes=1)).state == "scheduled"
    assert Job(worker="app.W", scheduled_at=datetime.now(UTC) - timedelta(minutes=1)).state == "available"
