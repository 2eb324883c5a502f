"""`enqueue` and its variants insert a unique job once, and return the stored one for each duplicate."""

from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from oban import Job, JobState, Oban, SyncOban, Worker
from oban.errors import UniqueConflict
from tests.support.databases import DATABASES
from tests.support.rows import TABLE, delete_rows, lasting_url
from tests.support.unique_jobs import refused_job
from tests.support.unique_jobs import unique_job as unique
from tests.support.waiting import eventually

SYNC_DRIVERS = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}


@pytest.fixture(scope="module", params=DATABASES)
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture(autouse=True)
async def emptied(oban: Oban) -> None:
    await delete_rows(oban.engine)


async def stored(engine: AsyncEngine) -> list[Any]:
    async with engine.connect() as connection:
        return list(await connection.execute(select(TABLE).order_by(TABLE.c.id)))


async def set_columns(engine: AsyncEngine, job_id: int | None, **columns: Any) -> None:
    async with engine.begin() as connection:
        statement = update(TABLE).values(columns)
        await connection.execute(statement if job_id is None else statement.where(TABLE.c.id == job_id))


Enqueue = Callable[[Oban, list[Job]], Awaitable[Any]]


async def one_by_one(oban: Oban, jobs: list[Job]) -> None:
    for job in jobs:
        assert await oban.enqueue(job) is job


async def at_once(oban: Oban, jobs: list[Job]) -> None:
    assert await oban.enqueue_many(jobs) == jobs


async def in_batches(oban: Oban, jobs: list[Job]) -> None:
    assert await oban.enqueue_stream(jobs, batch=2) == len(jobs)


async def in_a_session(oban: Oban, jobs: list[Job]) -> None:
    async with AsyncSession(oban.engine, expire_on_commit=False) as session, session.begin():
        await oban.enqueue_many(jobs, session=session)


async def on_a_connection(oban: Oban, jobs: list[Job]) -> None:
    async with oban.engine.begin() as connection:
        for job in jobs:
            await oban.enqueue(job, session=connection)


async def without_asyncio(oban: Oban, jobs: list[Job]) -> None:
    url = oban.engine.url
    engine = create_engine(url.set(drivername=SYNC_DRIVERS[url.get_backend_name()]))
    SyncOban(engine).enqueue_many(jobs[:2])
    with Session(engine, expire_on_commit=False) as session, session.begin():
        for job in jobs[2:]:
            SyncOban(engine).enqueue(job, session=session)
    engine.dispose()


@pytest.mark.parametrize(
    "enqueue", [one_by_one, at_once, in_batches, in_a_session, on_a_connection, without_asyncio]
)
async def test_every_call_returns_the_stored_job_for_a_duplicate(oban: Oban, enqueue: Enqueue) -> None:
    before = await oban.enqueue(unique(0, priority=2, tags=["Old"], meta={"m": [1]}))
    jobs = [unique(1), unique(0, tags=["new"]), unique(2), unique(1, meta={"m": 2}), unique(0)]
    await enqueue(oban, jobs)
    first, second = [job.id for job in (jobs[0], jobs[2])]
    assert before.id < first < second
    assert [job.id for job in jobs] == [first, before.id, second, first, before.id]
    assert [job.conflict for job in jobs] == [False, True, False, True, True]
    assert jobs[1].priority == 2
    assert jobs[1].tags == ["old"]
    assert jobs[1].meta == {"m": [1]}
    assert jobs[3].meta == {}
    for job, row in zip(jobs, [await oban.get_job(job.id) for job in jobs], strict=True):
        assert row is not None
        assert job.state == row.state == "available"
        assert (job.args, job.inserted_at, job.scheduled_at) == (row.args, row.inserted_at, row.scheduled_at)
        assert job.unique_key == row.unique_key is not None
        assert job.unique_rule == row.unique_rule is not None
        assert (job.attempt, job.errors, job.completed_at) == (0, [], None)
    assert len(await stored(oban.engine)) == 3


async def test_jobs_that_are_not_unique_go_with_the_others_in_order(oban: Oban) -> None:
    plain = [Job(worker="w", args={"n": n}) for n in range(3)]
    jobs = [plain[0], unique(1), plain[1], unique(1), plain[2], unique(2)]
    await oban.enqueue_many(jobs)
    new = [jobs[n] for n in (0, 1, 2, 4, 5)]
    ids = [job.id for job in new]
    assert ids == sorted(set(ids))
    assert jobs[3].id == jobs[1].id
    rows = {row.id: row for row in await stored(oban.engine)}
    assert [rows[job.id].args for job in new] == [job.args for job in new]
    assert [rows[job.id].unique_key is None for job in new] == [True, False, True, True, False]
    assert [job.unique_key for job in plain] == [None] * 3
    assert not any(job.conflict for job in new)


async def test_all_fields_of_a_new_unique_job_are_stored(oban: Oban) -> None:
    at = datetime(2031, 2, 3, 4, 5, 6, 789012, tzinfo=UTC)
    fields: dict[str, Any] = {
        "queue": "media",
        "priority": 3,
        "max_attempts": 5,
        "tags": ["a"],
        "meta": {"é": [1.5, None]},
        "scheduled_at": at,
    }
    alone = await oban.enqueue(unique(1, **fields))
    together = (await oban.enqueue_many([unique(2, **fields), unique(3)]))[0]
    delayed = await oban.enqueue(unique(4, schedule_in=60))
    suspended = unique(5)
    suspended.state = JobState.SUSPENDED
    await oban.enqueue(suspended)
    for job in (alone, together):
        row = await oban.get_job(job.id)
        assert row is not None
        assert {name: getattr(row, name) for name in fields} == fields
        assert row.state == job.state == "scheduled"
        assert job.scheduled_at == at
    assert delayed.state == "scheduled"
    assert delayed.scheduled_at - delayed.inserted_at == timedelta(seconds=60)
    assert suspended.state == "suspended"


@pytest.mark.parametrize("many", [False, True])
async def test_the_states_of_the_rule_decide(oban: Oban, many: bool) -> None:
    async def conflicts(rule: object) -> bool:
        job = unique(1, rule)
        await (oban.enqueue_many([job, unique(2, rule)]) if many else oban.enqueue(job))
        return job.conflict

    first = await oban.enqueue(unique(1))
    await set_columns(oban.engine, first.id, state="completed", completed_at=first.inserted_at)
    assert await conflicts(True)
    assert await conflicts({"states": ["completed", "cancelled"]})
    assert not await conflicts({"states": "incomplete"})
    assert await conflicts({"states": "incomplete"})
    assert not await conflicts({"states": ["discarded"]})
    assert not await conflicts({"states": ["discarded"]})


async def test_a_job_that_has_yet_to_run_is_returned_before_one_that_has(oban: Oban) -> None:
    ended = await oban.enqueue(unique(1, {"states": ["cancelled"]}))
    waiting = await oban.enqueue(unique(1, {"states": ["cancelled"]}))
    await set_columns(oban.engine, ended.id, state="completed", completed_at=ended.inserted_at)
    assert (await oban.enqueue(unique(1))).id == waiting.id


@pytest.mark.parametrize("timestamp", ["inserted_at", "scheduled_at"])
@pytest.mark.parametrize("many", [False, True])
async def test_a_period_slides_by_the_clock_of_the_database(oban: Oban, timestamp: str, many: bool) -> None:
    rule = {"period": 60, "timestamp": timestamp}

    async def enqueue() -> Job:
        job = unique(1, rule)
        await (oban.enqueue_many([job, unique(2, {**rule, "period": 1})]) if many else oban.enqueue(job))
        return job

    first = await enqueue()
    for seconds, conflict in [(55, True), (65, False)]:
        past = first.inserted_at - timedelta(seconds=seconds)
        await set_columns(oban.engine, None, **{timestamp: past})
        assert (await enqueue()).conflict is conflict


async def test_duplicates_in_a_call_are_judged_by_their_own_rules(oban: Oban) -> None:
    executing = {"states": "executing"}
    jobs = await oban.enqueue_many(
        [unique(1, executing), unique(1, executing), unique(1), unique(1, executing), unique(1)]
    )
    assert [job.conflict for job in jobs] == [False, False, True, False, True]
    assert {jobs[2].id, jobs[4].id} <= {jobs[0].id, jobs[1].id}
    scheduled = {"states": "scheduled"}
    jobs = await oban.enqueue_many(
        [unique(2, scheduled), unique(2, scheduled, schedule_in=9), unique(2, scheduled), unique(3)]
    )
    assert [job.conflict for job in jobs] == [False, False, True, False]
    assert jobs[2].id == jobs[1].id
    # The first is due long before the period of the second.
    past = datetime.now(UTC) - timedelta(days=1)
    by_due_time = {"period": 60, "timestamp": "scheduled_at"}
    jobs = await oban.enqueue_many(
        [unique(4, by_due_time, scheduled_at=past), unique(4, by_due_time), unique(4, by_due_time)]
    )
    assert [job.conflict for job in jobs] == [False, False, True]
    assert jobs[2].id == jobs[1].id


async def test_a_call_of_several_batches_is_one_transaction(oban: Oban) -> None:
    before = await oban.enqueue(unique(7))
    jobs = [unique(n % 1500) for n in range(2500)]
    await oban.enqueue_many(jobs)
    ids = [job.id for job in jobs]
    assert [job.conflict for job in jobs] == [n == 7 or n >= 1500 for n in range(2500)]
    assert ids[1500:] == ids[:1000]
    new = [id_ for n, id_ in enumerate(ids[:1500]) if n != 7]
    assert new == sorted(set(new))
    assert ids[7] == before.id
    with pytest.raises(DBAPIError):
        await oban.enqueue_many([*(unique(n) for n in range(3000, 4200)), refused_job()])
    assert len(await stored(oban.engine)) == 1500


async def test_a_refused_job_of_a_batch_leaves_nothing_behind(oban: Oban) -> None:
    with pytest.raises(DBAPIError):
        await oban.enqueue_many([unique(1), Job(worker="w"), refused_job()])
    assert await stored(oban.engine) == []
    assert not (await oban.enqueue(unique(1))).conflict


async def test_a_job_that_a_flush_has_refused_can_be_enqueued(oban: Oban, engine: AsyncEngine) -> None:
    before = await oban.enqueue(unique(1))
    job = unique(1)
    async with AsyncSession(engine) as session:
        session.add(job)
        with pytest.raises(UniqueConflict):
            await session.flush()
        await session.rollback()
        await oban.enqueue(job, session=session)
        assert job.conflict
        assert job.id == before.id


# -- sessions --------------------------------------------------------------------------------


async def test_a_conflict_in_a_session_is_attached_or_detached(oban: Oban, engine: AsyncEngine) -> None:
    before = await oban.enqueue(unique(1))
    async with AsyncSession(engine, expire_on_commit=False) as session:
        job = await oban.enqueue(unique(1), session=session)
        assert job in session
        assert not session.is_modified(job)
        again = await oban.enqueue(unique(1), session=session)
        assert again not in session
        assert again.id == job.id == before.id
        assert again.conflict
        assert job.conflict
        # Nothing that the new job had set is written to the row.
        changed = unique(1)
        changed.priority = 9
        await oban.enqueue(changed, session=session)
        assert changed.priority == 0
        await session.commit()
    assert [row.priority for row in await stored(engine)] == [0]


async def test_an_expired_conflict_loads_the_row(oban: Oban, engine: AsyncEngine) -> None:
    before = await oban.enqueue(unique(1))
    async with AsyncSession(engine) as session:
        job = await oban.enqueue(unique(1), session=session)
        await session.commit()
        await session.refresh(job)
        assert job.id == before.id
        assert job.conflict


@pytest.mark.parametrize("savepoint", [False, True])
async def test_a_rollback_turns_a_conflict_into_the_new_job_again(
    oban: Oban, engine: AsyncEngine, savepoint: bool
) -> None:
    before = await oban.enqueue(unique(1))
    job, new, folded = unique(1, tags=["mine"], schedule_in=60), unique(2), unique(2, priority=4)
    async with AsyncSession(engine) as session, session.begin():
        nested = await session.begin_nested() if savepoint else session
        await oban.enqueue_many([job, new, folded], session=session)
        assert (job.id, job.tags, folded.id) == (before.id, [], new.id)
        await nested.rollback()
    assert not job.conflict
    assert job.id is None
    assert job.tags == ["mine"]
    assert folded.priority == 4
    await set_columns(engine, None, state="cancelled", cancelled_at=before.inserted_at)
    await oban.enqueue_many([job, new, folded])
    assert not job.conflict
    assert job.state == "scheduled"
    assert job.id != before.id
    assert folded.conflict


async def test_an_own_uncommitted_job_is_in_the_way(oban: Oban, engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session, session.begin():
        first = await oban.enqueue(unique(1), session=session)
        second = await oban.enqueue(unique(1), session=session)
        many = await oban.enqueue_many([unique(1), unique(2)], session=session)
        assert second.conflict
        assert second.id == first.id == many[0].id
        assert many[1].id > first.id


# -- replace ---------------------------------------------------------------------------------


async def test_debounce_moves_the_time_of_the_waiting_job(oban: Oban) -> None:
    first = await oban.enqueue(unique(1, schedule_in=10))
    later = await oban.enqueue(
        unique(1, schedule_in=600, priority=4, replace={"scheduled": ["scheduled_at", "priority"]})
    )
    assert later.conflict
    assert later.id == first.id
    assert later.priority == 4
    assert later.state == "scheduled"
    assert later.scheduled_at > first.scheduled_at + timedelta(seconds=500)
    (row,) = await stored(oban.engine)
    assert (row.priority, row.scheduled_at, row.args) == (4, later.scheduled_at, {"n": 1})


async def test_a_replaced_time_moves_between_available_and_scheduled(oban: Oban) -> None:
    replace = ["scheduled_at"]
    await oban.enqueue(unique(1))
    at = datetime.now(UTC) + timedelta(days=1)
    moved = await oban.enqueue(unique(1, scheduled_at=at, replace=replace))
    assert (moved.state, moved.scheduled_at) == ("scheduled", at)
    back = await oban.enqueue(unique(1, replace=replace))
    assert back.state == "available"
    (row,) = await stored(oban.engine)
    assert row.state == "available"
    assert row.scheduled_at == back.scheduled_at < at


@pytest.mark.parametrize("state", ["executing", "completed", "retryable"])
async def test_replace_changes_only_the_fields_that_are_listed_for_the_state(oban: Oban, state: str) -> None:
    rule = {"fields": ["worker", "args"]}
    first = await oban.enqueue(unique(1, rule, meta={"old": 1}))
    times = {"completed_at": first.inserted_at} if state == "completed" else {}
    await set_columns(oban.engine, first.id, state=state, attempt=2, **times)
    fields = ["meta", "tags", "queue", "max_attempts", "scheduled_at"]
    job = await oban.enqueue(
        unique(
            1,
            rule,
            meta={"new": 1},
            tags=["T"],
            max_attempts=1,
            schedule_in=3600,
            replace={state: fields, "available": ["priority"]},
        )
    )
    (row,) = await stored(oban.engine)
    assert (row.state, row.meta, row.tags) == (state, {"new": 1}, ["t"])
    # A job that waits needs one more attempt than it has used.
    assert row.max_attempts == (3 if state == "retryable" else 2)
    moved = row.scheduled_at > first.scheduled_at + timedelta(seconds=3000)
    assert moved == (state != "executing")
    assert (job.state, job.meta, job.scheduled_at) == (row.state, row.meta, row.scheduled_at)


async def test_replacements_of_a_call_are_applied_in_order(oban: Oban, engine: AsyncEngine) -> None:
    rule = {"keys": ["n"]}
    jobs = [unique(args={"n": n % 2, "v": n}, rule=rule, replace=["args"]) for n in range(6)]
    async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
        await oban.enqueue_many(jobs, session=session)
    assert [job.args["v"] for job in jobs] == [4, 5, 4, 5, 4, 5]
    assert [job.conflict for job in jobs] == [False, False, True, True, True, True]
    rows = await stored(engine)
    assert [row.args for row in rows] == [{"n": 0, "v": 4}, {"n": 1, "v": 5}]
    again = unique(args={"n": 1, "v": "x"}, rule=rule)
    assert (await oban.enqueue(again)).id == rows[1].id


async def test_replace_refreshes_the_instance_that_the_session_has(oban: Oban, engine: AsyncEngine) -> None:
    await oban.enqueue(unique(1))
    async with AsyncSession(engine) as session, session.begin():
        mine = (await session.scalars(select(Job))).one()
        await oban.enqueue(unique(1, priority=7, replace=["priority"]), session=session)
        assert mine.priority == 7


# -- announcements ---------------------------------------------------------------------------


async def test_a_debounced_job_that_becomes_due_runs_at_once(url: URL) -> None:
    async with Oban(url, queues={"default": 5}, poll_interval=3600, stage_interval=3600) as oban:
        await oban.enqueue(unique(1, schedule_in=3600))
        await oban.enqueue(unique(1, replace=["scheduled_at"]))

        async def ran() -> bool:
            (row,) = await stored(oban.engine)
            return bool(row.attempt == 1)

        await eventually(ran)


# -- workers ---------------------------------------------------------------------------------


class Report(Worker, unique={"keys": ["account"]}, replace={"available": ["args"]}, oban="unique"):
    """A worker whose jobs are unique by one key of their args."""

    async def process(self, job: Job) -> None:
        """Never runs here."""


async def test_the_worker_decides_unless_the_call_does(url: URL) -> None:
    async with Oban(url, name="unique") as oban:
        first = await Report.enqueue({"account": 1, "page": 1})
        second = await Report.enqueue({"account": 1, "page": 2})
        assert second.id == first.id
        assert second.conflict
        assert second.args["page"] == 2
        assert not (await Report.enqueue({"account": 1}, unique=False)).conflict
        assert not (await Report.enqueue({"account": 1}, unique={"fields": ["worker", "args"]})).conflict
        assert (await oban.enqueue(Report.new({"account": 1, "page": 3}))).id == first.id


def test_plain_code_enqueues_unique_jobs(url: URL) -> None:
    engine = create_engine(url.set(drivername=SYNC_DRIVERS[url.get_backend_name()]))
    with SyncOban(engine, name="unique") as oban:
        first = Report.enqueue_sync({"account": 1, "page": 1})
        with Session(engine) as session, session.begin():
            second = Report.enqueue_sync({"account": 1, "page": 2}, session=session)
            assert second.conflict
            assert (second.id, second.args["page"]) == (first.id, 2)
        assert oban.enqueue_stream(Report.new({"account": n % 3}) for n in range(9)) == 9
        assert len(oban.list_jobs()) == 3
    engine.dispose()
