"""Periodic entries are listed, paused, changed, added, deleted and run, through both clients."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, Oban, SyncOban, Worker, clock
from oban.errors import ConfigError, InvalidJob, PeriodicInCode, PeriodicNotFound
from oban.models import PeriodicEntry, Tick
from oban.periodic import Periodic, PeriodicInfo
from oban.registry import registry
from oban.repository import cluster, periodic
from tests.support.internals import database_of
from tests.support.rows import delete_rows, just_now, lasting_url, read_row

DAY = timedelta(days=1)


@pytest.fixture(scope="module", params=["sqlite", "asyncpg"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each. The sync client uses psycopg."""
    yield from lasting_url(request)


class Awaited:
    """A `SyncOban` whose methods can be awaited, so that the same tests are for both clients."""

    def __init__(self, oban: SyncOban) -> None:
        self._oban = oban

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            return getattr(self._oban, name)(*args, **options)

        return call


@pytest.fixture(params=["Oban", "SyncOban"])
async def client(request: pytest.FixtureRequest, oban: Oban) -> AsyncIterator[Any]:
    """Either client, on a database whose code declares the entry `nightly`."""
    async with oban.engine.begin() as connection:
        for table in (PeriodicEntry, Tick):
            await connection.execute(delete(table))
    await delete_rows(oban.engine)
    now = await database_of(oban).read(cluster.database_time)
    job = Job(worker="app.Report", args={"kind": "daily"}, queue="reports", tags=["a"], meta={"by": "code"})
    entry = Periodic("nightly", "0 3 * * *", job, timezone="Europe/Berlin")
    await database_of(oban).write(periodic.declare, "Oban", [entry], now)
    if request.param == "Oban":
        yield oban
        return
    url = oban.engine.url
    driver = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}[url.get_backend_name()]
    with SyncOban(url.set(drivername=driver)) as sync_oban:
        yield Awaited(sync_oban)


async def the(client: Any, name: str = "nightly") -> PeriodicInfo:
    """The entry of a name, from the list of all."""
    (found,) = [info for info in await client.list_periodic() if info.name == name]
    assert isinstance(found, PeriodicInfo)
    return found


async def change(oban: Oban, **columns: Any) -> None:
    async with oban.engine.begin() as connection:
        await connection.execute(update(PeriodicEntry).values(**columns))


async def floor(oban: Oban, name: str = "nightly") -> datetime | None:
    (entry,) = await database_of(oban).read(periodic.load_entries, "Oban", name)
    return entry.last_tick


def next_in_berlin(hour: int) -> set[datetime]:
    """The next times at which it is this hour in Berlin, in winter and in summer."""
    times = set()
    for offset in (1, 2):
        time = datetime.now(UTC).replace(hour=hour - offset, minute=0, second=0, microsecond=0)
        times |= {time, time + DAY}
    return times


async def test_the_list_has_each_value_of_an_entry(client: Any, oban: Oban) -> None:
    info = await the(client)
    next_at = info.next_at
    assert next_at in next_in_berlin(3)
    assert datetime.now(UTC) < next_at < datetime.now(UTC) + DAY + timedelta(hours=1)
    assert asdict(info) == {
        "name": "nightly",
        "expression": "0 3 * * *",
        "timezone": "Europe/Berlin",
        "worker": "app.Report",
        "queue": "reports",
        "args": {"kind": "daily"},
        "priority": 0,
        "max_attempts": None,
        "tags": ["a"],
        "meta": {"by": "code"},
        "catch_up": "latest",
        "window": 3600.0,
        "source": "code",
        "paused": False,
        "override": {},
        "gone": False,
        "last_tick": None,
        "last_job_id": None,
        "next_at": next_at,
    }
    assert info.overridden is False
    assert await Oban(oban.engine, name="other").list_periodic() == []


async def test_the_list_has_the_last_tick_and_its_job(client: Any, oban: Oban) -> None:
    first = datetime(2026, 3, 1, 2, tzinfo=UTC)
    rows = [
        {"name": name, "entry": entry, "tick": first + day * DAY, "job_id": day + 7, "inserted_at": first}
        for name, entry, days in (("Oban", "nightly", 3), ("Oban", "other", 9), ("other", "nightly", 9))
        for day in range(days)
    ]
    async with oban.engine.begin() as connection:
        await connection.execute(insert(Tick), rows)
    info = await the(client)
    assert (info.last_tick, info.last_job_id) == (first + 2 * DAY, 9)


async def test_an_entry_that_no_node_declares_is_gone(client: Any, oban: Oban) -> None:
    await change(oban, seen_at=datetime.now(UTC) - timedelta(minutes=2))
    info = await the(client)
    assert (info.gone, info.next_at) == (True, None)


async def test_a_stored_expression_that_cannot_be_parsed_leaves_the_list_readable(
    client: Any, oban: Oban
) -> None:
    await change(oban, override={"expression": "L W ? * *"})
    info = await the(client)
    assert (info.expression, info.next_at) == ("L W ? * *", None)


async def test_a_paused_entry_starts_now_when_it_is_resumed(client: Any, oban: Oban) -> None:
    past = datetime.now(UTC) - DAY
    await change(oban, last_tick=past)
    await client.pause_periodic("nightly")
    info = await the(client)
    assert (info.paused, info.next_at) == (True, None)
    assert await floor(oban) == past
    await client.resume_periodic("nightly")
    info = await the(client)
    assert not info.paused
    assert info.next_at is not None
    assert datetime.now(UTC) - timedelta(minutes=1) < (await floor(oban) or past) < info.next_at
    # An entry that is not paused makes up for what it has missed.
    await change(oban, last_tick=past)
    await client.resume_periodic("nightly")
    assert await floor(oban) == past


async def test_an_update_overrides_the_code_until_it_is_reset(client: Any, oban: Oban) -> None:
    past = datetime.now(UTC) - DAY
    await change(oban, last_tick=past)
    info = await client.update_periodic(
        "nightly",
        queue="slow",
        args={"kind": "short"},
        priority=3,
        max_attempts=2,
        tags=("B", "b"),
        meta={"by": "hand"},
        catch_up="skip",
        window=timedelta(minutes=1),
    )
    assert info == await the(client)
    assert info.override == {
        "queue": "slow",
        "args": {"kind": "short"},
        "priority": 3,
        "max_attempts": 2,
        "tags": ["b"],
        "meta": {"by": "hand"},
        "catch_up": "skip",
        "window": 60.0,
    }
    assert info.override.items() <= asdict(info).items()
    assert info.overridden is True
    # The times are as before, so what was missed is still made up for.
    assert await floor(oban) == past
    info = await client.update_periodic("nightly", expression="0 5 * * *", queue="slower")
    assert (info.expression, info.queue, info.priority) == ("0 5 * * *", "slower", 3)
    assert info.next_at in next_in_berlin(5)
    assert (await floor(oban) or past) > past
    await change(oban, last_tick=past)
    await client.pause_periodic("nightly")
    info = await client.reset_periodic("nightly")
    assert (info.expression, info.queue, info.priority, info.max_attempts) == (
        "0 3 * * *",
        "reports",
        0,
        None,
    )
    assert (info.override, info.overridden, info.paused) == ({}, False, True)
    assert (await floor(oban) or past) > past


#: Changes that `update_periodic` refuses before it asks the database.
WRONG_CHANGES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({}, ConfigError, "nothing to update"),
    ({"queue": None}, ConfigError, "nothing to update"),
    ({"quue": "x"}, ConfigError, "'quue' cannot be updated; did you mean queue"),
    ({"worker": "x"}, ConfigError, "'worker' cannot be updated"),
    ({"expression": "0 3 * *"}, ConfigError, "0 3"),
    ({"timezone": "Europe/Berlim"}, ConfigError, "Europe/Berlin"),
    ({"catch_up": "none"}, ConfigError, "catch_up must be skip, latest, all or a number"),
    ({"window": 0}, ConfigError, "window must be more than 0"),
    ({"queue": "a b"}, InvalidJob, "is not a queue name"),
    ({"args": [1]}, InvalidJob, "args"),
    ({"priority": 10}, InvalidJob, "priority must be 0 to 9"),
]


async def test_a_wrong_update_is_refused(client: Any) -> None:
    for changes, error, words in WRONG_CHANGES:
        with pytest.raises(error, match=words):
            await client.update_periodic("nightly", **changes)
    assert not (await the(client)).overridden


@dataclass
class Pages:
    """The args of the worker below."""

    kind: str
    pages: int = 1


class Typed(Worker[Pages], unique=True):
    """A worker that this process has, in contrast to that of `nightly`."""

    async def process(self, job: Job) -> None: ...


async def test_the_worker_checks_the_args_of_an_update_if_the_process_has_it(client: Any) -> None:
    await client.add_periodic(Periodic("typed", "@daily", Typed.new(Pages("long"))))
    info = await client.update_periodic("typed", args=Pages("short"))
    assert info.args == {"kind": "short", "pages": 1}
    with pytest.raises(InvalidJob, match="pages"):
        await client.update_periodic("typed", args={"kind": "short", "pages": "many"})


async def test_a_job_of_an_entry_runs_now(client: Any, oban: Oban) -> None:
    await client.pause_periodic("nightly")
    await client.update_periodic("nightly", queue="now")
    job = await client.run_periodic("nightly")
    stored = await read_row(oban.engine, job.id)
    assert stored is not None
    assert (stored["worker"], stored["queue"], stored["state"]) == ("app.Report", "now", "available")
    assert (stored["args"], stored["max_attempts"]) == ({"kind": "daily"}, 20)
    assert stored["meta"] == {
        "by": "code",
        "cron": True,
        "cron_name": "nightly",
        "cron_expr": "0 3 * * *",
        "cron_tz": "Europe/Berlin",
    }
    # It is no tick.
    async with oban.engine.connect() as connection:
        assert (await connection.execute(select(func.count()).select_from(Tick))).scalar_one() == 0


async def test_a_unique_job_is_inserted_once_whether_or_not_the_process_knows_its_worker(
    client: Any, oban: Oban
) -> None:
    for number, unique in enumerate((True, False)):
        job = Typed.new(Pages("long"), unique=unique)
        await client.add_periodic(Periodic(f"typed {number}", "@daily", job))
    registered = registry.pop(Typed.worker_name)
    try:
        first, second = [await client.run_periodic("typed 0") for _ in range(2)]
        assert (first.conflict, second.conflict, second.id) == (False, True, first.id)
        # The job has turned uniqueness off.
        third = await client.run_periodic("typed 1")
        assert (third.conflict, third.id == first.id) == (False, False)
    finally:
        registry[Typed.worker_name] = registered


async def test_an_added_entry_survives_and_is_replaced_and_deleted(client: Any, oban: Oban) -> None:
    job = Job(worker="app.Report", args={"customer": 7}, max_attempts=3)
    added = await client.add_periodic(Periodic("customer 7", "0 6 * * mon", job, catch_up="all"))
    assert added == await the(client, "customer 7")
    assert (added.source, added.catch_up, added.args, added.max_attempts) == (
        *("runtime", "all", {"customer": 7}),
        3,
    )
    assert added.next_at is not None
    assert (added.next_at.weekday(), added.next_at.hour) == (0, 6)
    past = datetime.now(UTC) - 9 * DAY
    await change(oban, last_tick=past, seen_at=past)
    await client.pause_periodic("customer 7")
    await client.update_periodic("customer 7", queue="slow")
    # It needs no node that declares it.
    assert not (await the(client, "customer 7")).gone
    again = await client.add_periodic({"name": "customer 7", "expression": "0 7 * * mon", "job": job})
    assert (again.expression, again.queue, again.paused) == ("0 7 * * mon", "slow", True)
    assert await floor(oban, "customer 7") == past
    await client.delete_periodic("customer 7")
    assert [info.name for info in await client.list_periodic()] == ["nightly"]
    with pytest.raises(PeriodicNotFound):
        await client.delete_periodic("customer 7")


async def test_an_entry_of_the_code_is_neither_replaced_nor_deleted_until_it_is_gone(
    client: Any, oban: Oban
) -> None:
    entry = Periodic("nightly", "0 6 * * *", Job(worker="app.Report"))
    with pytest.raises(PeriodicInCode, match="declares a periodic entry 'nightly': choose another name"):
        await client.add_periodic(entry)
    with pytest.raises(PeriodicInCode, match="remove it from the code, or pause it"):
        await client.delete_periodic("nightly")
    assert (await the(client)).expression == "0 3 * * *"
    await change(oban, seen_at=datetime.now(UTC) - timedelta(minutes=2))
    added = await client.add_periodic(entry)
    assert (added.source, added.expression, added.gone) == ("runtime", "0 6 * * *", False)
    await change(oban, source="code", seen_at=datetime.now(UTC) - timedelta(minutes=2))
    await client.delete_periodic("nightly")
    assert await client.list_periodic() == []


CALLS = ("pause", "resume", "run", "reset", "delete")


async def test_an_unknown_name_is_refused_with_a_similar_one(client: Any, oban: Oban) -> None:
    for call in CALLS:
        with pytest.raises(PeriodicNotFound, match="'nigthly'; did you mean nightly") as caught:
            await getattr(client, f"{call}_periodic")("nigthly")
        assert caught.value.name == "nigthly"
    with pytest.raises(PeriodicNotFound):
        await client.update_periodic("nigthly", queue="x")
    for wrong in (None, 3, "", "a\x00b", "\ud800", "x" * 256):
        with pytest.raises(PeriodicNotFound):
            await client.pause_periodic(wrong)
    async with oban.engine.begin() as connection:
        await connection.execute(delete(PeriodicEntry))
    with pytest.raises(PeriodicNotFound, match="the instance 'Oban' has none at all"):
        await client.pause_periodic("nightly")


async def test_a_poll_notices_a_change_although_a_test_has_moved_the_clock(oban: Oban, client: Any) -> None:
    with clock.use(clock.MovableClock(datetime(2031, 1, 1, tzinfo=UTC))):
        await client.pause_periodic("nightly")
    async with oban.engine.connect() as connection:
        changed_at = (await connection.execute(select(PeriodicEntry.updated_at))).scalar_one()
    assert just_now(changed_at)


async def test_changes_in_a_session_are_made_when_it_commits(oban: Oban, url: URL, client: Any) -> None:
    added = Periodic("added", "0 6 * * *", Job(worker="app.Report"))
    async with AsyncSession(oban.engine) as session:
        await oban.pause_periodic("nightly", session=session)
        await oban.update_periodic("nightly", session=session, queue="slow")
        await oban.add_periodic(added, session=session)
        job = await oban.run_periodic("nightly", session=session)
        assert job in session
        names = [info.name for info in await oban.list_periodic(session=session)]
        assert names == ["added", "nightly"]
        await session.rollback()
    assert [(info.name, info.paused, info.queue) for info in await oban.list_periodic()] == [
        ("nightly", False, "reports")
    ]
    async with AsyncSession(oban.engine) as session:
        await oban.pause_periodic("nightly", session=session)
        await oban.delete_periodic((await oban.add_periodic(added, session=session)).name, session=session)
        await oban.reset_periodic("nightly", session=session)
        await session.commit()
    assert (await the(oban)).paused


async def test_each_change_tells_the_leader_and_nobody_else(sqlite_url: URL) -> None:
    heard: list[Any] = []
    entry = Periodic("nightly", "0 3 * * *", Job(worker="app.Report"))
    async with Oban(sqlite_url) as oban:
        database_of(oban).on_notices.append(heard.extend)
        await oban.add_periodic(entry)
        await oban.update_periodic("nightly", queue="slow")
        await oban.reset_periodic("nightly")
        await oban.pause_periodic("nightly")
        await oban.resume_periodic("nightly")
        await oban.delete_periodic("nightly")
        # Without the ident, nodes of the previous release would take it for a command for queues.
        assert heard == [("signal", {"action": "periodic", "name": "Oban", "ident": ""})] * 6
        await oban.add_periodic(entry)
        heard.clear()
        await oban.list_periodic()
        await oban.run_periodic("nightly")
        assert heard == [("insert", {"queue": "default"})]
