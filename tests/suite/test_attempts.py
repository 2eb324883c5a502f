"""The history of jobs: each attempt that ends leaves one row, which is deleted with its job."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, JobState, Oban, SyncOban, encoding
from oban.config import Retention
from oban.errors import InvalidTarget, NotEnqueued
from oban.models import Attempt
from oban.repository import acknowledge, fetch, prune, rescue
from oban.repository.acknowledge import OUTCOMES, Ack
from tests.support.databases import DATABASES, SQLiteFactory
from tests.support.internals import database_of
from tests.support.jobs import row_of
from tests.support.rows import MADE, insert_row, insert_rows, just_now, lasting_url, row

NODE, OWNER = "node-1", "0b5f3a86-30e4-4c3a-9a67-1c8b7d1a2e01"
OTHER = "1c6f3a86-30e4-4c3a-9a67-1c8b7d1a2e02"
LOG = [{"at": "2030-01-01T00:00:00Z", "level": "INFO", "text": "a\nb \u00e4"}]
PROGRESS = {"attempt": 1, "done": 3, "total": 10, "message": "reading", "at": "2030-01-01T00:00:00Z"}


@pytest.fixture(scope="module", params=DATABASES)
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module."""
    yield from lasting_url(request)


async def acknowledged(oban: Oban, *acks: Ack) -> set[int]:
    return await database_of(oban).write(acknowledge.acknowledge, acks)


async def outcomes(oban: Oban, *ids: int) -> list[list[str]]:
    return [[attempt.outcome for attempt in await oban.list_attempts(id_)] for id_ in ids]


async def executing(oban: Oban, count: int, **columns: Any) -> list[int]:
    return await insert_rows(oban.engine, *(row("executing", **columns) for _ in range(count)))


async def stored(oban: Oban) -> int:
    async with oban.engine.connect() as connection:
        return await connection.scalar(select(func.count()).select_from(Attempt.__table__)) or 0


@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_each_outcome_leaves_a_row(oban: Oban, outcome: str) -> None:
    (id_,) = await executing(oban, 1, attempt=2, attempted_by=[NODE, OWNER])
    report: dict[str, Any] = {
        "error": "why",
        "progress": encoding.dumps(PROGRESS),
        "log": encoding.dumps(LOG),
    }
    assert await acknowledged(oban, Ack(id_, 2, OWNER, outcome, **report)) == {id_}
    (attempt,) = await oban.list_attempts(id_)
    assert (attempt.job_id, attempt.attempt, attempt.outcome) == (id_, 2, outcome)
    assert (attempt.node, attempt.producer, attempt.error) == (NODE, OWNER, "why")
    assert (attempt.log, attempt.progress, attempt.trace) == (LOG, PROGRESS, None)
    assert attempt.started_at == MADE + timedelta(minutes=2)
    assert just_now(attempt.ended_at)


@pytest.mark.parametrize("fetches", [False, True], ids=["alone", "with a fetch"])
async def test_completed_jobs_leave_a_row_each_however_they_are_acknowledged(
    oban: Oban, fetches: bool
) -> None:
    first = await executing(oban, 3, attempted_by=[NODE, OWNER])
    second = await executing(oban, 2, attempt=4, attempted_by=[NODE, OWNER])
    last, failed = await executing(oban, 2, attempted_by=[NODE, OWNER])
    waiting = await insert_row(oban.engine, "available", queue=f"mine-{fetches}")
    batches = [
        [Ack(id_, 1, OWNER, "completed") for id_ in first],
        # Attempts of different numbers, values and failures take another statement.
        [*(Ack(id_, 4, OWNER, "completed") for id_ in second), Ack(last, 1, OWNER, "completed", value="1")],
        [Ack(failed, 1, OWNER, "failed", error="bad", delay=5.0)],
    ]
    database, claimed = database_of(oban), []
    for acks in batches:
        if fetches:
            turn = fetch.acknowledge_and_fetch
            claimed += await database.write(turn, acks, f"mine-{fetches}", 5, NODE, OTHER)
        else:
            await acknowledged(oban, *acks)
    assert [job.id for job in claimed] == ([waiting] if fetches else [])
    assert await outcomes(oban, *first, *second, last, failed, waiting) == [
        *(6 * [["completed"]]),
        ["failed"],
        [],
    ]
    (attempt,) = await oban.list_attempts(second[0])
    job = await row_of(oban, second[0])
    assert (attempt.attempt, attempt.error, attempt.log, attempt.progress) == (4, None, None, None)
    assert job.completed_at is not None
    assert abs(attempt.ended_at - job.completed_at) < timedelta(seconds=10)


async def test_an_acknowledgement_that_changes_nothing_leaves_no_row(oban: Oban) -> None:
    ids = await executing(oban, 2, attempted_by=[NODE, OWNER])
    ack, other = Ack(ids[0], 1, OWNER, "completed"), Ack(ids[1], 1, OWNER, "failed", error="bad")
    strangers = [Ack(ids[1], 1, OTHER, "completed"), Ack(ids[1], 2, OWNER, "failed", error="x")]
    assert await acknowledged(oban, *strangers) == set()
    # The answer to the first acknowledgement may be lost, so that it is repeated.
    for _ in range(2):
        await acknowledged(oban, ack, other)
        await acknowledged(oban, ack)
    assert await outcomes(oban, *ids) == [["completed"], ["failed"]]


async def test_an_attempt_without_a_node_has_a_row(oban: Oban) -> None:
    # Another program may have made the job execute.
    id_ = await insert_row(oban.engine, "executing", attempted_by=[], attempted_at=None)
    await acknowledged(oban, Ack(id_, 1, "", "completed"))
    (attempt,) = await oban.list_attempts(id_)
    assert (attempt.node, attempt.producer, attempt.started_at) == (None, None, None)


async def test_an_attempt_by_text_that_is_no_json_has_a_row(sqlite_factory: SQLiteFactory) -> None:
    async with Oban(sqlite_factory.create()) as oban:
        ids = await executing(oban, 2, attempted_by=[])
        broken = text("UPDATE oban_jobs SET attempted_by = 'no JSON' WHERE id = :id")
        async with oban.engine.begin() as connection:
            await connection.execute(broken, {"id": ids[0]})
        await acknowledged(oban, *(Ack(id_, 1, "", "completed") for id_ in ids))
        rows = [(row.node, row.producer) for id_ in ids for row in await oban.list_attempts(id_)]
    assert rows == [(None, None)] * 2


async def test_snoozes_of_the_same_number_are_listed_in_their_order(oban: Oban) -> None:
    job = await oban.enqueue(Job(worker="any", queue="snoozed"))
    for outcome in ("snoozed", "released", "failed"):
        (claimed,) = await database_of(oban).write(fetch.fetch, "snoozed", 1, NODE, OWNER)
        await acknowledged(oban, Ack(claimed.id, claimed.attempt, OWNER, outcome, delay=3600.0))
        await oban.retry_job(job)
    attempts = await oban.list_attempts(job)
    assert [(each.attempt, each.outcome) for each in attempts] == [
        *((1, "snoozed"), (1, "released"), (1, "failed"))
    ]


async def test_the_cancellation_of_an_executing_job_ends_its_attempt(oban: Oban) -> None:
    ids = await executing(oban, 2, attempted_by=[NODE, OWNER])
    waiting = await insert_row(oban.engine, "retryable", attempted_by=[NODE, OWNER])
    assert await oban.cancel_many_jobs([*ids, waiting]) == 3
    assert await outcomes(oban, *ids, waiting) == [["cancelled"], ["cancelled"], []]
    (attempt,) = await oban.list_attempts(ids[0])
    assert (attempt.attempt, attempt.node, attempt.producer, attempt.error) == (1, NODE, OWNER, None)
    assert attempt.ended_at == (await row_of(oban, ids[0])).cancelled_at
    # The run ends later, and its acknowledgement may be repeated.
    late = Ack(ids[0], 1, OWNER, "failed", error="stopped", progress=encoding.dumps(PROGRESS))
    for ack in (late, late._replace(error="again"), Ack(ids[1], 1, OTHER, "failed", error="no")):
        await acknowledged(oban, ack)
    await acknowledged(oban, Ack(ids[1], 1, OWNER, "completed", log=encoding.dumps(LOG)))
    (completed,) = await oban.list_attempts(ids[0])
    assert (completed.outcome, completed.error, completed.progress) == ("cancelled", "stopped", PROGRESS)
    assert completed.ended_at == attempt.ended_at
    (other,) = await oban.list_attempts(ids[1])
    assert (other.outcome, other.error, other.log) == ("cancelled", None, LOG)


async def test_a_rescue_ends_the_attempt_and_a_discard_without_a_run_does_not(oban: Oban) -> None:
    meta = {"progress": PROGRESS, "kept": 1}
    rescued = await insert_row(oban.engine, "executing", attempted_by=[NODE, OWNER], meta=meta)
    last = await insert_row(
        oban.engine, "executing", attempt=3, max_attempts=3, attempted_by=[NODE, OWNER], meta=meta
    )
    exhausted = await insert_row(oban.engine, "available", attempt=3, max_attempts=3)
    await database_of(oban).write(rescue.rescue, 60.0, 3600.0, (), [rescued, last])
    await database_of(oban).write(rescue.discard_exhausted, [exhausted])
    assert await outcomes(oban, rescued, last, exhausted) == [["rescued"], ["rescued"], []]
    (attempt,) = await oban.list_attempts(last)
    assert attempt.error == "the node 'node-1' was lost while it ran attempt 3 of 3"
    # The progress is of another attempt.
    assert attempt.progress is None
    (attempt,) = await oban.list_attempts(rescued)
    assert (attempt.node, attempt.error, attempt.progress) == (NODE, None, PROGRESS)


async def test_without_history_nothing_is_stored(url: URL) -> None:
    async with Oban(url, history=False) as oban:
        before = await stored(oban)
        done, failed, cancelled, orphan = await executing(oban, 4, attempted_by=[NODE, OWNER])
        await acknowledged(oban, Ack(done, 1, OWNER, "completed"))
        await acknowledged(oban, Ack(failed, 1, OWNER, "failed", error="bad"))
        assert await oban.cancel_job(cancelled)
        await acknowledged(oban, Ack(cancelled, 1, OWNER, "failed", error="late"))
        await database_of(oban).write(rescue.rescue, 60.0, 3600.0, (), [orphan])
        jobs = [await row_of(oban, id_) for id_ in (done, failed, cancelled, orphan)]
        assert [job.state for job in jobs] == [
            *(JobState.COMPLETED, JobState.RETRYABLE, JobState.CANCELLED, JobState.AVAILABLE)
        ]
        assert await stored(oban) == before


async def test_attempts_are_deleted_with_their_jobs(oban: Oban) -> None:
    # Far apart, so that they are not deleted by the same statement.
    last = await insert_row(oban.engine)
    ids = [last + 10_000 + distance for distance in (1, 2, 3, 20_001, 20_002, 90_000)]
    for id_ in ids:
        await insert_row(oban.engine, "executing", id=id_, attempted_by=[NODE, OWNER])
    await acknowledged(oban, *(Ack(id_, 1, OWNER, "completed") for id_ in ids))
    async with oban.engine.begin() as connection:
        twice = {"attempt": 2, "outcome": "completed", "ended_at": MADE}
        await connection.execute(insert(Attempt.__table__), [{"job_id": id_, **twice} for id_ in ids])
    assert await oban.delete_job(ids[1])
    rule = prune.rules(Retention(completed=0))[0]
    assert await database_of(oban).write(prune.prune, rule, 10, None, [ids[0], ids[3]]) == 2
    assert await oban.delete_many_jobs([ids[5]]) == 1
    kept = ids[2], ids[4]
    assert [len(await oban.list_attempts(id_)) for id_ in ids] == [2 if id_ in kept else 0 for id_ in ids]


async def test_ids_of_deleted_jobs_are_not_used_again(oban: Oban) -> None:
    job = await oban.enqueue(Job(worker="any"))
    assert await oban.delete_job(job)
    assert (await oban.enqueue(Job(worker="any"))).id > job.id


async def test_attempts_are_listed_by_job_or_id_and_in_the_callers_transaction(oban: Oban) -> None:
    (id_,) = await executing(oban, 1, attempted_by=[NODE, OWNER])
    job = await row_of(oban, id_)
    async with AsyncSession(oban.engine) as session:
        await database_of(oban).run(session, acknowledge.acknowledge, [Ack(id_, 1, OWNER, "completed")])
        (attempt,) = await oban.list_attempts(job, session)
        assert attempt not in session
        await session.rollback()
    assert await oban.list_attempts(job) == []
    assert attempt.outcome == "completed"
    for nothing in (2**63 - 1, 2**70, 0, -1):
        assert await oban.list_attempts(nothing) == []
    with pytest.raises(InvalidTarget):
        await oban.list_attempts("1")  # type: ignore[arg-type]
    with pytest.raises(NotEnqueued):
        await oban.list_attempts(Job(worker="any"))


async def test_the_orm_reads_attempts(oban: Oban) -> None:
    (id_,) = await executing(oban, 1, attempted_by=[NODE, OWNER])
    await acknowledged(oban, Ack(id_, 1, OWNER, "failed", error="bad", log=encoding.dumps(LOG)))
    async with AsyncSession(oban.engine) as session:
        attempt = (await session.scalars(select(Attempt).where(Attempt.job_id == id_))).one()
        assert (attempt.outcome, attempt.log) == ("failed", LOG)


def test_a_sync_client_lists_cancels_and_deletes(url: URL) -> None:
    driver = "pysqlite" if url.get_backend_name() == "sqlite" else "psycopg"
    oban = SyncOban(create_engine(url.set(drivername=f"{url.get_backend_name()}+{driver}")))
    with oban.engine.begin() as connection:
        result = connection.execute(insert(Job.__table__).returning(Job.id), [row("executing")])
        id_ = result.scalar_one()
    assert oban.cancel_job(id_)
    (attempt,) = oban.list_attempts(id_)
    assert (attempt.outcome, attempt.node) == ("cancelled", NODE)
    with oban.engine.connect() as connection:
        assert len(oban.list_attempts(id_, connection)) == 1
    assert oban.delete_job(id_)
    assert oban.list_attempts(id_) == []
    oban.engine.dispose()
