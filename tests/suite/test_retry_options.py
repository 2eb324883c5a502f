"""A retry can set another time, queue and priority, and leaves out jobs with all attempts that fit."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from oban import InvalidJob, Job, Oban, SyncOban
from tests.support.databases import DATABASES
from tests.support.rows import STATES, delete_rows, insert_row, insert_rows, just_now, lasting_url, row

LATER = datetime(2091, 7, 1, 12, 30, 15, 250125, tzinfo=UTC)
EARLIER = datetime(2021, 7, 1, 12, 30, 15, 250125, tzinfo=UTC)
#: As many attempts as a smallint can count.
MOST = 32767


@pytest.fixture(scope="module", params=DATABASES)
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, each of which has its own rows."""
    yield from lasting_url(request)


async def found(oban: Oban, id_: int) -> Job:
    job = await oban.get_job(id_)
    assert job is not None
    return job


async def test_a_future_time_schedules_the_job_whatever_its_state(oban: Oban) -> None:
    made = [row(state, max_attempts=1, attempt=1, queue="times") for state in STATES]
    ids = await insert_rows(oban.engine, *made)
    targets = select(Job).where(Job.queue == "times")
    assert await oban.retry_many_jobs(targets, scheduled_at=LATER, priority=7) == len(STATES) - 2
    for state, id_ in zip(STATES, ids, strict=True):
        job = await found(oban, id_)
        if state in ("available", "executing"):
            assert (job.state, job.priority, job.max_attempts) == (state, 3, 1)
        else:
            assert (job.state, job.scheduled_at, job.priority) == ("scheduled", LATER, 7)
            assert (job.attempt, job.max_attempts, job.queue) == (1, 2, "times")
            assert (job.completed_at, job.cancelled_at, job.discarded_at) == (None, None, None)


#: The options, the state afterwards, and the time: None stands for now.
TIMES: list[tuple[dict[str, Any], str, datetime | timedelta | None]] = [
    ({}, "available", None),
    ({"scheduled_at": None, "schedule_in": None, "queue": None, "priority": None}, "available", None),
    ({"scheduled_at": EARLIER}, "available", EARLIER),
    ({"scheduled_at": LATER.astimezone()}, "scheduled", LATER),
    ({"schedule_in": 3600}, "scheduled", timedelta(hours=1)),
    ({"scheduled_in": timedelta(hours=1)}, "scheduled", timedelta(hours=1)),
    ({"schedule_in": 0}, "available", None),
    ({"schedule_in": -1}, "available", None),
]


@pytest.mark.parametrize(("options", "state", "at"), TIMES, ids=[str(item[0]) for item in TIMES])
async def test_the_time_decides_the_state(
    oban: Oban, options: dict[str, Any], state: str, at: datetime | timedelta | None
) -> None:
    job = await found(oban, await insert_row(oban.engine, "discarded"))
    assert await oban.retry_job(job, **options) is True
    assert (job.state, job.queue, job.priority, job.discarded_at) == (state, "default", 3, None)
    if isinstance(at, datetime):
        assert job.scheduled_at == at
    else:
        assert just_now(job.scheduled_at - (at or timedelta(0)))


async def test_the_caller_commits_and_the_instance_shows_the_queue_and_the_priority(oban: Oban) -> None:
    id_ = await insert_row(oban.engine, "cancelled")
    async with AsyncSession(oban.engine) as session:
        job = await session.get_one(Job, id_)
        assert await oban.retry_job(id_, session, queue="moved", priority=0, scheduled_at=LATER)
        assert (job.queue, job.priority, job.state, job.scheduled_at) == ("moved", 0, "scheduled", LATER)
        await session.rollback()
    assert (await found(oban, id_)).state == "cancelled"


def test_a_sync_client_takes_the_same_options(url: URL) -> None:
    driver = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}[url.get_backend_name()]
    with SyncOban(url.set(drivername=driver)) as client:
        job = client.enqueue(Job(worker="tests.Nobody"))
        client.cancel_job(job)
        assert client.retry_job(job, schedule_in=60, queue="moved")
        assert (job.state, job.queue) == ("scheduled", "moved")
        assert client.retry_many_jobs([job.id], priority=1) == 1
        read = client.get_job(job.id)
        assert read is not None
        assert (read.state, read.queue, read.priority) == ("available", "moved", 1)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"scheduled_at": datetime(2091, 1, 1)}, "scheduled_at must carry a time zone"),
    ({"scheduled_at": "2091-01-01"}, "scheduled_at must be a datetime, not str"),
    ({"scheduled_at": False}, "scheduled_at must be a datetime, not bool"),
    ({"schedule_in": "60"}, "schedule_in must be seconds or a timedelta, not str"),
    ({"schedule_in": False}, "schedule_in must be seconds or a timedelta, not bool"),
    ({"schedule_in": float("nan")}, "schedule_in must be finite"),
    ({"schedule_in": 1, "scheduled_at": LATER}, "exclude each other"),
    ({"schedule_in": 1, "scheduled_in": 1}, "exclude each other"),
    ({"queue": ""}, "is not a queue name"),
    ({"queue": 5}, "queue must be a string, not int"),
    ({"priority": 10}, "priority must be 0 to 9, not 10"),
    ({"priority": True}, "priority must be an integer, not bool"),
    ({"max_attempts": 5}, "max_attempts cannot be set by a retry"),
    ({"prioriti": 5}, r"prioriti cannot be set by a retry; did you mean priority\?"),
]


async def test_a_wrong_option_is_refused_before_any_job_is_changed(oban: Oban) -> None:
    id_ = await insert_row(oban.engine, "discarded")
    for options, message in WRONG:
        with pytest.raises(InvalidJob, match=message):
            await oban.retry_job(id_, **options)
        with pytest.raises(InvalidJob, match=message):
            await oban.retry_many_jobs([id_], **options)
    assert (await found(oban, id_)).state == "discarded"


@pytest.mark.parametrize("options", [{}, {"scheduled_at": LATER, "queue": "moved"}], ids=["now", "later"])
async def test_a_job_that_has_used_all_attempts_that_fit_is_left_out_of_its_batch(
    oban: Oban, options: dict[str, Any]
) -> None:
    await delete_rows(oban.engine)
    attempts = [(MOST, MOST), (MOST - 1, MOST - 1), (MOST - 1, MOST), (1, MOST), (MOST, MOST), (1, 1)]
    made = [row("discarded", attempt=attempt, max_attempts=most) for attempt, most in attempts]
    ids = await insert_rows(oban.engine, *made)
    assert await oban.retry_job(ids[0], **options) is False
    assert await oban.retry_many_jobs([ids[0]], **options) == 0
    assert await oban.retry_many_jobs(ids, **options) == 4
    jobs = [await found(oban, id_) for id_ in ids]
    after = [(1, 2) if one == (1, 1) else (one[0], MOST) for one in attempts]
    assert [(job.attempt, job.max_attempts) for job in jobs] == after
    new = "scheduled" if options else "available"
    states = ["discarded" if one[0] == MOST else new for one in attempts]
    assert [job.state for job in jobs] == states


async def test_rows_of_other_programs_that_only_sqlite_can_store_are_left_out(sqlite_url: URL) -> None:
    async with Oban(sqlite_url) as oban:
        made = [row("discarded", attempt=1, max_attempts=1) for _ in range(4)]
        ids = await insert_rows(oban.engine, *made)
        async with oban.engine.begin() as connection:
            for id_, attempt in zip(ids, ("32768", "40000", "'many'"), strict=False):
                values = f"attempt = {attempt}, max_attempts = {attempt}"
                await connection.execute(text(f"UPDATE oban_jobs SET {values} WHERE id = {id_}"))
        assert await oban.retry_many_jobs(ids) == 1
        assert (await found(oban, ids[-1])).max_attempts == 2
