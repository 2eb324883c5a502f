"""Nodes declare the periodic entries of their code, and leave what operators have changed as it is."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, delete, select, update

from oban import Job, Oban
from oban.errors import PeriodicInCode
from oban.models import PeriodicEntry
from oban.periodic import Periodic
from oban.repository import cluster, periodic, periodic_changes
from oban.repository.periodic import Entry
from tests.support.internals import database_of
from tests.support.rows import lasting_url
from tests.support.statements import recorded

MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module", params=["sqlite", "asyncpg"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each. Those of the scheduler use each driver."""
    yield from lasting_url(request)


@pytest.fixture(autouse=True)
async def emptied(oban: Oban) -> None:
    async with oban.engine.begin() as connection:
        await connection.execute(delete(PeriodicEntry))


def nightly(expression: str = "0 3 * * *", **options: Any) -> Periodic:
    job = Job(worker="app.Report", args={"kind": "daily"}, tags=["b", "a"], priority=2)
    return Periodic("nightly", expression, job, **options)


async def now(oban: Oban) -> datetime:
    return await database_of(oban).read(cluster.database_time)


async def declare(oban: Oban, declared_at: datetime, *entries: Periodic) -> None:
    await database_of(oban).write(periodic.declare, "Oban", entries, declared_at, 60.0)


async def undeclared(oban: Oban, declared_at: datetime, *entries: Periodic, lease: float = 60.0) -> list[str]:
    found = await database_of(oban).read(periodic.find_undeclared, "Oban", entries, declared_at, lease)
    return [entry.name for entry in found.entries]


async def load(oban: Oban, name: str = "nightly") -> Entry:
    (entry,) = await database_of(oban).read(periodic.load_entries, "Oban", name)
    return entry


async def change(oban: Oban, **columns: Any) -> None:
    async with oban.engine.begin() as connection:
        await connection.execute(update(PeriodicEntry).values(**columns))


async def test_a_new_entry_starts_now_and_has_all_values_of_its_job(oban: Oban) -> None:
    start = await now(oban)
    await declare(oban, start, nightly(timezone="Europe/Berlin", catch_up=3, window=timedelta(hours=2)))
    entry = await load(oban)
    assert entry.values == {
        "expression": "0 3 * * *",
        "timezone": "Europe/Berlin",
        "catch_up": 3,
        "window": 7200.0,
        "worker": "app.Report",
        "queue": "default",
        "args": {"kind": "daily"},
        "priority": 2,
        "tags": ["a", "b"],
        "meta": {},
    }
    assert (entry.source, entry.paused, entry.override) == ("code", False, {})
    assert entry.declared_at == start
    assert entry.last_tick is not None
    assert start <= entry.last_tick == entry.seen_at <= entry.read_at
    assert not entry.is_gone(60.0)


async def test_an_entry_for_reboots_starts_without_a_floor(oban: Oban) -> None:
    await declare(oban, await now(oban), nightly("@reboot"))
    assert (await load(oban)).last_tick is None


async def test_one_statement_declares_all_entries(oban: Oban) -> None:
    job = Job(worker="app.Report")
    entries = [Periodic(f"entry {number}", "* * * * *", job) for number in range(20)]
    start = await now(oban)
    for _ in range(2):
        with recorded(oban.engine) as sent:
            await declare(oban, start, *entries)
        assert len(sent) == 1
    assert [entry.name for entry in await database_of(oban).read(periodic.load_entries, "Oban")] == sorted(
        entry.name for entry in entries
    )


async def test_a_declaration_keeps_what_operators_have_changed_and_the_last_tick(oban: Oban) -> None:
    start = await now(oban)
    await declare(oban, start, nightly())
    floor = start - timedelta(days=1)
    await change(oban, paused=True, override={"queue": "slow"}, last_tick=floor)
    await declare(oban, start + MINUTE, nightly("30 4 * * *"))
    entry = await load(oban)
    assert (entry.paused, entry.override, entry.last_tick) == (True, {"queue": "slow"}, floor)
    assert (entry.values["expression"], entry.values["queue"]) == ("30 4 * * *", "slow")
    assert entry.declared_at == start + MINUTE


async def test_the_newest_code_wins_while_both_versions_run(oban: Oban) -> None:
    start = await now(oban)
    await declare(oban, start, nightly("0 4 * * *"))
    await declare(oban, start - MINUTE, nightly("0 3 * * *"))
    assert (await load(oban)).values["expression"] == "0 4 * * *"
    # The newer node was stopped: its declaration is out of date after most of a lease.
    await change(oban, seen_at=start - MINUTE)
    assert await undeclared(oban, start - MINUTE, nightly("0 3 * * *")) == ["nightly"]
    await declare(oban, start - MINUTE, nightly("0 3 * * *"))
    entry = await load(oban)
    assert entry.values["expression"] == "0 3 * * *"
    assert entry.declared_at == start - MINUTE
    assert not entry.is_gone(60.0)


async def test_nothing_is_written_while_all_is_declared_and_fresh(oban: Oban) -> None:
    start = await now(oban)
    assert await undeclared(oban, start, nightly()) == ["nightly"]
    await declare(oban, start, nightly())
    assert await undeclared(oban, start, nightly()) == []
    assert await undeclared(oban, start, nightly(catch_up="skip")) == ["nightly"]
    assert await undeclared(oban, start + MINUTE, nightly()) == ["nightly"]
    # Older code does not replace it.
    assert await undeclared(oban, start - MINUTE, nightly(catch_up="skip")) == []
    await change(oban, seen_at=await now(oban) - timedelta(seconds=20))
    for lease in (60.0, 3600.0):
        assert await undeclared(oban, start, nightly(), lease=lease) == ["nightly"]
    assert await undeclared(oban, start - MINUTE, nightly(), lease=60.0) == []


async def test_an_entry_that_was_added_at_runtime_is_not_replaced_by_the_code(oban: Oban) -> None:
    start = await now(oban)
    await declare(oban, start, nightly())
    await change(oban, source="runtime")
    found = await database_of(oban).read(
        periodic.find_undeclared, "Oban", [nightly("0 4 * * *")], start + MINUTE, 60.0
    )
    assert (found.entries, found.shadowed) == ([], ["nightly"])
    await declare(oban, start + MINUTE, nightly("0 4 * * *"))
    assert (await load(oban)).values["expression"] == "0 3 * * *"
    await change(oban, seen_at=start - timedelta(days=9))
    assert not (await load(oban)).is_gone(60.0)


async def test_instances_do_not_see_the_entries_of_each_other(oban: Oban) -> None:
    start = await now(oban)
    await declare(oban, start, nightly())
    await database_of(oban).write(periodic.declare, "other", [nightly("0 5 * * *")], start, 60.0)
    assert (await load(oban)).values["expression"] == "0 3 * * *"


async def test_entries_that_no_node_declares_are_gone_and_deleted_after_a_while(oban: Oban) -> None:
    start = await now(oban)
    await declare(oban, start, nightly())
    await change(oban, seen_at=start - MINUTE)
    assert (await load(oban)).is_gone(60.0)
    assert await database_of(oban).write(periodic.delete_gone, "Oban", 3600.0) == 0
    assert await database_of(oban).write(periodic.delete_gone, "Oban", 60.0) == 1
    async with oban.engine.connect() as connection:
        assert (await connection.execute(select(PeriodicEntry.entry))).all() == []


async def test_the_lease_of_the_node_that_declares_an_entry_counts(oban: Oban) -> None:
    start, database = await now(oban), database_of(oban)
    await database.write(periodic.declare, "Oban", [nightly()], start, 3600.0)
    await change(oban, seen_at=start - MINUTE)
    assert not (await load(oban)).is_gone(2.0)
    (info,) = await database.read(periodic_changes.list_infos, "Oban", 2.0)
    assert not info.gone
    with pytest.raises(PeriodicInCode):
        await database.write(periodic_changes.remove, "Oban", "nightly", 2.0)
    with pytest.raises(PeriodicInCode):
        await database.write(periodic_changes.add, "Oban", nightly(), 2.0)
    # Nor does a node with older code and a short lease take it over.
    older = [nightly("0 5 * * *")]
    assert await undeclared(oban, start - MINUTE, *older, lease=2.0) == []
    assert await database.write(periodic.declare, "Oban", older, start - MINUTE, 2.0) == 0
    assert await undeclared(oban, start, nightly(), lease=30.0) == ["nightly"]
    await database.write(periodic.declare, "Oban", [nightly()], start, 30.0)
    await change(oban, seen_at=start - MINUTE)
    assert (await load(oban)).is_gone(3600.0)
    await database.write(periodic_changes.remove, "Oban", "nightly", 3600.0)


async def test_the_job_of_an_entry_says_where_it_comes_from(oban: Oban) -> None:
    await declare(oban, await now(oban), nightly())
    await change(oban, override={"meta": {"by": "hand"}, "args": {}})
    entry = await load(oban)
    job = entry.new_job(datetime.fromisoformat("2026-03-01T03:00:00+00:00"))
    assert (job.worker, job.args, job.tags, job.priority) == ("app.Report", {}, ["a", "b"], 2)
    cron = {"cron": True, "cron_name": "nightly", "cron_expr": "0 3 * * *", "cron_tz": "UTC"}
    assert job.meta == {"by": "hand", **cron, "cron_tick": "2026-03-01T03:00:00Z"}
    assert entry.new_job().meta == {"by": "hand", **cron}
