"""Management calls see the caller's unit of work, update its instances, and are undone by a rollback."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import URL, inspect, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import aliased, load_only

from oban import Job, Oban
from oban.database.transaction import OwnTransaction
from oban.repository.selection import parse_id
from tests.support.databases import DATABASES
from tests.support.internals import database_of, replace_finish
from tests.support.rows import TABLE, delete_rows, insert_row, lasting_url, read_row, read_rows, shown

Caller = AsyncSession | AsyncConnection
CHANGES = ("cancel", "retry", "update", "update by a select", "cancel by an alias")


class Marked(Job):
    """A subclass of `Job` that the application maps."""


@pytest.fixture(scope="module", params=DATABASES)
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture(autouse=True)
async def emptied(oban: Oban) -> None:
    await delete_rows(oban.engine)


@pytest.fixture(params=["AsyncSession", "AsyncConnection"])
async def caller(request: pytest.FixtureRequest, engine: AsyncEngine) -> AsyncIterator[Caller]:
    made = AsyncSession(engine) if request.param == "AsyncSession" else engine.connect()
    async with made as opened:
        yield opened


async def change(oban: Oban, name: str, job: Any, session: Caller | None = None) -> None:
    """Change a retryable job by one of several calls."""
    id_ = job if isinstance(job, int) else inspect(job).identity[0]
    if name == "cancel":
        await oban.cancel_job(job, session)
    elif name == "retry":
        await oban.retry_job(job, session)
    elif name == "update":
        await oban.update_job(job, {"tags": ["new"]}, session)
    elif name == "update by a select":
        await oban.update_many_jobs(select(Job).where(Job.id == id_), {"tags": ["new"]}, session)
    else:
        other = aliased(Job)
        await oban.cancel_many_jobs(select(other).where(other.id == id_), session)


@contextlib.contextmanager
def announced(oban: Oban) -> Iterator[list[Any]]:
    """The notices of this client, on a database that does not notify."""
    seen: list[Any] = []
    database_of(oban).on_notices[:] = [seen.extend]
    yield seen
    database_of(oban).on_notices.clear()


# -- the caller's state ------------------------------------------------------------------------


async def test_a_call_sees_and_keeps_the_callers_uncommitted_state(oban: Oban, engine: AsyncEngine) -> None:
    id_ = await insert_row(engine, "retryable")
    async with AsyncSession(engine, autoflush=False) as session:
        loaded = await session.get_one(Job, id_)
        loaded.queue, loaded.priority = "media", 7
        pending = Job(worker="tests.New", queue="media")
        session.add(pending)
        async with session.begin_nested():
            nested = await oban.enqueue(Job(worker="tests.Nested", queue="media"), session)
        of_media = select(Job).where(Job.queue == "media")
        assert len(await oban.list_jobs(of_media, session)) == 3
        updated = await oban.update_many_jobs(of_media, lambda job: {"meta": {"was": job.priority}}, session)
        assert updated == [loaded, pending, nested]
        assert [job.meta for job in updated] == [{"was": 7}, {"was": 0}, {"was": 0}]
        assert await oban.cancel_many_jobs(of_media, session) == 3
        assert {job.state for job in updated} == {"cancelled"}
        assert (loaded.queue, loaded.priority) == ("media", 7)
        assert not session.dirty
        await session.commit()
    rows = (await read_rows(engine)).values()
    assert [(found["queue"], found["state"], found["priority"]) for found in rows] == [
        *(("media", "cancelled", 7), ("media", "cancelled", 0), ("media", "cancelled", 0))
    ]


# -- instances ---------------------------------------------------------------------------------


@pytest.mark.parametrize("expire_on_commit", [True, False])
@pytest.mark.parametrize("how", ["loaded", "expired", "partly expired", "some columns", "own class"])
async def test_the_instances_of_the_session_show_the_row_at_once(
    oban: Oban, engine: AsyncEngine, how: str, expire_on_commit: bool
) -> None:
    for name in CHANGES:
        id_ = await insert_row(engine, "retryable")
        async with AsyncSession(engine, expire_on_commit=expire_on_commit) as session:
            options = [load_only(Job.queue)] if how == "some columns" else []
            loaded = await session.get_one(Marked if how == "own class" else Job, id_, options=options)
            if "expired" in how:
                session.expire(loaded, ["state", "tags"] if how == "partly expired" else None)
            await change(oban, name, id_, session)
            # Every attribute is loaded; an async session could not load one here.
            assert loaded.state != "retryable" or loaded.tags == ["new"], name
            assert shown(loaded)["id"] == id_
            await session.commit()
            await session.refresh(loaded, list(TABLE.columns.keys()))
            assert shown(loaded) == await read_row(engine, id_)


@pytest.mark.parametrize("where", ["detached", "another session", "another session, expired"])
@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
async def test_an_instance_of_another_session_shows_the_row_while_it_exists(
    oban: Oban, engine: AsyncEngine, caller: Caller, where: str, end: str
) -> None:
    id_ = await insert_row(engine, "retryable")
    before = await read_row(engine, id_)
    async with AsyncSession(engine, expire_on_commit=False) as other:
        job = await other.get_one(Job, id_)
        # Its session has no transaction that could block the caller's.
        await other.commit()
        if where == "detached":
            other.expunge(job)
        elif where.endswith("expired"):
            other.expire(job)
        updated = await oban.update_job(job, {"tags": ["new"]}, caller)
        assert (updated is job, job.tags) == (True, ["new"])
        await oban.cancel_job(job, caller)
        assert job.state == "cancelled"
        await getattr(caller, end)()
        if where.endswith("expired") and end != "commit":
            await other.refresh(job)
        assert shown(job) == await read_row(engine, id_)
        assert (shown(job) == before) is (end != "commit")


async def test_pending_changes_of_another_session_stay_except_for_what_the_call_wrote(
    oban: Oban, engine: AsyncEngine
) -> None:
    id_ = await insert_row(engine, "retryable", priority=3)
    async with AsyncSession(engine, expire_on_commit=False) as other:
        job = await other.get_one(Job, id_)
        await other.commit()
        job.priority, job.tags = 8, ["mine"]
        await oban.update_job(job, {"tags": ["theirs"], "queue": "moved"})
        assert (job.priority, job.tags, job.queue) == (8, ["theirs"], "moved")
        await other.commit()
    found = await read_row(engine, id_)
    assert found is not None
    assert (found["priority"], found["tags"], found["queue"]) == (8, ["theirs"], "moved")


async def test_a_rollback_restores_a_pending_change(oban: Oban, engine: AsyncEngine) -> None:
    id_ = await insert_row(engine, "retryable")
    async with AsyncSession(engine, expire_on_commit=False) as other, AsyncSession(engine) as session:
        job = await other.get_one(Job, id_)
        await other.commit()
        job.tags = ["mine"]
        await oban.update_job(job, {"tags": ["theirs"]}, session)
        assert (job.tags, other.is_modified(job)) == (["theirs"], False)
        await session.rollback()
        assert (job.tags, other.is_modified(job)) == (["mine"], True)
        await other.commit()
    assert (await read_row(engine, id_) or {})["tags"] == ["mine"]


async def test_two_instances_do_not_share_mutable_values(oban: Oban, engine: AsyncEngine) -> None:
    id_ = await insert_row(engine, "retryable")
    first, second = await oban.get_job(id_), await oban.get_job(id_)
    assert first is not None
    assert second is not None
    await oban.update_many_jobs([first, second], {"meta": {"a": [1]}})
    first.meta["a"].append(2)
    assert second.meta == {"a": [1]}


async def test_a_late_answer_does_not_overwrite_what_a_later_call_showed(
    oban: Oban, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = await insert_row(engine, "retryable")
    job = await oban.get_job(id_)
    assert job is not None
    late = list[OwnTransaction]()

    async with AsyncSession(engine, expire_on_commit=False) as session:
        loaded = await session.get_one(Job, id_)
        await session.commit()

        replace_finish(monkeypatch, oban, late.append)
        await oban.update_many_jobs([job, loaded], {"priority": 1})
        monkeypatch.undo()
        await oban.update_job(job, {"priority": 2})
        await oban.update_job(loaded, {"queue": "newer"}, session)
        await session.commit()
        for transaction in late:
            transaction.finish()
        found = await read_row(engine, id_)
        assert (job.priority, shown(loaded)) == (2, found)


async def test_after_concurrent_calls_instances_show_the_last(oban: Oban, engine: AsyncEngine) -> None:
    id_ = await insert_row(engine, "retryable")
    for _ in range(5):
        job = await oban.get_job(id_)
        assert job is not None
        await asyncio.gather(*[oban.update_job(job, {"priority": number}) for number in range(10)])
        assert shown(job) == await read_row(engine, id_)


# -- rollbacks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*CHANGES, "delete"])
async def test_after_a_rollback_instances_show_the_stored_row(
    oban: Oban, engine: AsyncEngine, name: str
) -> None:
    for savepoint in (False, True):
        id_ = await insert_row(engine, "retryable")
        before = await read_row(engine, id_)
        async with AsyncSession(engine, expire_on_commit=False) as session:
            loaded = await session.get_one(Job, id_)
            begun = await session.begin_nested() if savepoint else session
            if name == "delete":
                assert await oban.delete_job(loaded, session)
                assert loaded not in session
            else:
                await change(oban, name, id_, session)
                assert shown(loaded) != before
            await begun.rollback()
            assert loaded in session
            await session.refresh(loaded)
            assert shown(loaded) == before
            await session.rollback()
            loaded = await session.get_one(Job, id_)
            loaded.priority = 9
            await session.commit()
        assert (await read_row(engine, id_) or {})["priority"] == 9


async def test_a_rolled_back_savepoint_expires_only_what_was_changed_in_it(
    oban: Oban, engine: AsyncEngine
) -> None:
    ids = [await insert_row(engine, "retryable") for _ in range(2)]
    async with AsyncSession(engine, expire_on_commit=False) as session:
        first, second = [await session.get_one(Job, id_) for id_ in ids]
        await oban.cancel_job(first, session)
        nested = await session.begin_nested()
        await oban.cancel_job(second, session)
        await nested.rollback()
        assert first.state == "cancelled"
        assert "state" not in second.__dict__
        await session.commit()
    assert [found["state"] for found in (await read_rows(engine)).values()] == ["cancelled", "retryable"]


async def test_a_rolled_back_savepoint_restores_passed_instances(
    oban: Oban, engine: AsyncEngine, caller: Caller
) -> None:
    id_ = await insert_row(engine, "retryable")
    job = await oban.get_job(id_)
    fresh, kept = Job(worker="tests.New"), Job(worker="tests.Kept")
    assert job is not None
    await oban.update_job(job, {"priority": 1}, caller)
    outer = await caller.begin_nested()
    await oban.update_job(job, {"priority": 2}, caller)
    async with caller.begin_nested():
        await oban.update_job(job, {"priority": 3}, caller)
        await oban.enqueue(fresh, caller)
    assert job.priority == 3
    await outer.rollback()
    assert (job.priority, inspect(fresh).transient) == (1, True)
    async with caller.begin_nested():
        await oban.enqueue(fresh, caller)
        await oban.enqueue(kept, caller)
    await caller.commit()
    assert list(await read_rows(engine)) == [id_, *(parse_id(new) for new in (fresh, kept))]
    assert shown(job) == await read_row(engine, id_)


@pytest.mark.parametrize("end", ["rollback", "close"])
async def test_a_job_can_be_enqueued_again_after_its_transaction_failed(
    oban: Oban, engine: AsyncEngine, caller: Caller, end: str
) -> None:
    job = Job(worker="tests.New")
    await oban.enqueue(job, caller)
    await getattr(caller, end)()
    await oban.enqueue(job)
    assert list(await read_rows(engine)) == [job.id]


# -- what is announced -------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
async def test_notices_are_sent_at_commit_only(
    oban: Oban, engine: AsyncEngine, caller: Caller, end: str
) -> None:
    if database_of(oban).dialect.listens:
        # The server notifies, as part of the transaction.
        return
    running = await insert_row(engine, "executing")
    with announced(oban) as seen:
        await oban.cancel_job(running, caller)
        async with caller.begin_nested():
            await oban.enqueue(Job(worker="tests.New", queue="kept"), caller)
        nested = await caller.begin_nested()
        await oban.enqueue(Job(worker="tests.New", queue="lost"), caller)
        await nested.rollback()
        assert seen == []
        await getattr(caller, end)()
        expected = [
            ("signal", {"action": "pkill", "job_id": running, "done": True}),
            ("insert", {"queue": "kept"}),
        ]
        assert seen == (expected if end == "commit" else [])
    if end == "rollback":
        with announced(oban) as seen:
            await oban.enqueue(Job(worker="tests.New", queue="next"), caller)
            await caller.commit()
        assert seen == [("insert", {"queue": "next"})]
