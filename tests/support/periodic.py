"""Declares periodic entries, fires them as a leader does, and reads what came of it."""

from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, select, update

from oban import Job, Oban
from oban.models import PeriodicEntry, Tick
from oban.periodic import Periodic
from oban.repository import periodic, ticks
from oban.repository.ticks import Fired
from oban.runner.services.leader import Leader
from tests.support.internals import database_of

#: When tests begin: a Sunday, in UTC.
START = datetime(2025, 3, 9, tzinfo=UTC)
#: A lease longer than any test lasts by its own clock.
LEASE = 1e9


class Leads(Leader):
    """A leader by order of the test, whatever the table says."""

    leading = True

    @property
    def leads(self) -> bool:
        return self.leading


def entry(
    name: str, expression: str = "* * * * *", *, worker: str = "app.Worker", **options: Any
) -> Periodic:
    fields = {key: options.pop(key) for key in ("args", "tags", "meta", "queue") if key in options}
    return Periodic(name, expression, Job(worker=worker, **fields), **options)


async def empty_periodic(oban: Oban) -> None:
    """Delete all entries, ticks and jobs."""
    async with oban.engine.begin() as connection:
        for model in (PeriodicEntry, Tick, Job):
            await connection.execute(delete(model))


async def declare(oban: Oban, *entries: Periodic, lease: float = LEASE) -> None:
    await database_of(oban).write(periodic.declare, "Oban", entries, START, lease)


async def fire(oban: Oban, *names: str, lease: float = LEASE, **options: Any) -> Fired:
    """Fire some entries, or all."""
    chosen: Collection[str] = names or [one.name for one in await load(oban)]
    return await database_of(oban).write(ticks.fire, "Oban", chosen, lease, **options)


async def load(oban: Oban) -> list[periodic.Entry]:
    return await database_of(oban).read(periodic.load_entries, "Oban")


async def change(oban: Oban, name: str, **columns: Any) -> None:
    """Change columns of an entry's row."""
    async with oban.engine.begin() as connection:
        changed = update(PeriodicEntry).where(PeriodicEntry.entry == name)
        await connection.execute(changed.values(**columns))


async def fired_ticks(oban: Oban) -> Counter[tuple[str, str]]:
    """How many jobs there are for each entry and tick."""
    async with oban.engine.connect() as connection:
        metas = (await connection.execute(select(Job.__table__.c.meta))).scalars()
        return Counter((meta["cron_name"], meta["cron_tick"]) for meta in metas if "cron_tick" in meta)


async def tick_rows(oban: Oban) -> list[tuple[str, datetime, int | None]]:
    """The stored ticks: entry, time and id of the job."""
    columns = Tick.__table__.c
    async with oban.engine.connect() as connection:
        rows = await connection.execute(
            select(columns.entry, columns.tick, columns.job_id).order_by(columns.entry, columns.tick)
        )
        return [(name, tick, job_id) for name, tick, job_id in rows]
