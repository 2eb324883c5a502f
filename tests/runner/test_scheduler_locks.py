"""A transaction of a caller that stays open keeps only the entry from firing that it has changed."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, Oban, Periodic, clock
from oban.clock import MovableClock
from oban.config import Options
from oban.database.aio import Database
from oban.repository import periodic, ticks
from oban.runner.services.scheduler import Scheduler
from oban.telemetry import PeriodicFailed
from tests.support.internals import database_of
from tests.support.periodic import START, Leads, change, entry, fired_ticks, load
from tests.support.telemetry import recording

MINUTE = timedelta(minutes=1)
pytestmark = pytest.mark.parametrize("postgresql_url", ["asyncpg"], indirect=True)


def scheduler(oban: Oban, *entries: Periodic, database: Database | None = None) -> Scheduler:
    chosen = database or database_of(oban)
    leader = Leads(chosen, Options())
    leader.term = 1
    return Scheduler(chosen, Options(), leader, lambda: entries)


@pytest.fixture
async def oban(postgresql_url: URL) -> AsyncIterator[Oban]:
    """A client on PostgreSQL. On SQLite, a transaction that writes keeps all others from writing."""
    async with Oban(postgresql_url) as client:
        yield client


@pytest.fixture
def now(oban: Oban) -> Any:
    with clock.use(MovableClock(START)) as moving:
        yield moving


async def names_fired(oban: Oban) -> list[str]:
    return sorted(name for name, _ in (await fired_ticks(oban)).elements())


async def test_an_entry_that_an_open_transaction_has_changed_does_not_hold_up_others(
    oban: Oban, now: MovableClock, caplog: pytest.LogCaptureFixture
) -> None:
    one = scheduler(oban, *map(entry, "abc"))
    await one.tick()
    async with AsyncSession(oban.engine) as session:
        await oban.pause_periodic("b", session=session)
        now.advance(MINUTE)
        pause = await one.tick()
        assert await names_fired(oban) == ["a", "c"]
        assert pause is not None
        assert 0 < pause < 1
        # A transaction may be open at any tick for a moment.
        assert caplog.text == ""
        with recording(oban, PeriodicFailed) as recorder:
            for _ in range(4):
                one.reload()
                await one.tick()
        assert [(event.entry, event.failures) for event in recorder.of(PeriodicFailed)] == [
            ("b", 4),
            ("b", 5),
        ]
        assert caplog.text.count("the periodic entry b cannot insert its jobs, and tries again") == 1
        await session.rollback()
    one.reload()
    await one.tick()
    assert await names_fired(oban) == ["a", "b", "c"]


async def test_a_declaration_does_not_wait_for_an_entry_that_an_open_transaction_has_changed(
    oban: Oban, now: MovableClock
) -> None:
    await scheduler(oban, *map(entry, "abc")).tick()
    newer = scheduler(oban, *(entry(name, catch_up="skip") for name in "abcd"))
    async with AsyncSession(oban.engine) as session:
        await oban.update_periodic("b", session=session, priority=3)
        pause = await newer.tick()
        policies = [found.values["catch_up"] for found in await load(oban)]
        assert policies == ["skip", "latest", "skip", "skip"]
        assert pause is not None
        assert pause <= 1
        await session.commit()
    entries = [entry(name, catch_up="skip") for name in "abcd"]
    found = await load(oban)
    assert await database_of(oban).write(periodic.declare, "Oban", entries, found[0].declared_at) == 4
    assert [found.values["catch_up"] for found in await load(oban)] == ["skip"] * 4


async def test_a_unique_job_whose_key_an_open_transaction_has_locked_does_not_hold_up_others(
    oban: Oban, now: MovableClock
) -> None:
    def unique(name: str) -> Periodic:
        job = Job(worker="app.Worker", args={"of": name}, unique=True)
        return Periodic(name, "* * * * *", job)

    # A client waits for a lock as long as the server lets it, a node for a second.
    own = database_of(oban).with_own_pool(1, 5.0)
    one = scheduler(oban, entry("a"), unique("b"), unique("c"), database=own)
    await one.tick()
    async with AsyncSession(oban.engine) as session:
        await oban.enqueue(unique("c").job, session=session)
        now.advance(MINUTE)
        await one.tick()
        assert await names_fired(oban) == ["a", "b"]
        await session.rollback()
    one.reload()
    await one.tick()
    assert await names_fired(oban) == ["a", "b", "c"]
    await own.dispose()


async def test_cleaning_and_beginning_skip_entries_that_an_open_transaction_has_changed(
    oban: Oban, now: MovableClock
) -> None:
    await scheduler(oban, *map(entry, "ab")).tick()
    await change(oban, "a", last_tick=None)
    await change(oban, "b", last_tick=None)
    database = database_of(oban)
    async with AsyncSession(oban.engine) as session:
        await oban.pause_periodic("b", session=session)
        await database.write(ticks.begin_entries, "Oban")
        assert [found.last_tick for found in await load(oban)] == [START, None]
        await database.write(ticks.end_term, "Oban", ["a", "b"])
        assert await database.write(periodic.delete_gone, "Oban", 0.0) == 1
        assert [found.name for found in await load(oban)] == ["b"]
