"""F18: rows that another program corrupted delay only themselves, and are discarded or skipped."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest
from sqlalchemy import URL, Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from oban import Job, JobState, Oban, Worker
from tests.faults import recording
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

GOOD = 1_000
_DEEP = "[" * 5_000 + "]" * 5_000
_HUGE = "1" + "0" * 5_000
#: A row runs like any other, is discarded with a reason, or is left alone.
RUNS, FAILS, STAYS = "completed", "discarded", ""
#: Columns of rows as SQL, by database, and the result for each.
COMMON = {
    "args are a list": ("args = '[1]'", FAILS),
    "args are null": ("args = 'null'", FAILS),
    "args are a number": ("args = '3'", FAILS),
    "args are text": ("""args = '"x"'""", FAILS),
    "args are 5,000 levels deep": (f"""args = '{{"a": {_DEEP}}}'""", FAILS),
    "args hold a number of 5,000 digits": (f"""args = '{{"a": {_HUGE}}}'""", FAILS),
    "meta is a list": ("meta = '[1]'", FAILS),
    "meta is null": ("meta = 'null'", FAILS),
    "meta is 5,000 levels deep": (f"""meta = '{{"a": {_DEEP}}}'""", FAILS),
    "errors are an object": ("""errors = '{"a": 1}'""", RUNS),
    "errors are null": ("errors = 'null'", RUNS),
    "errors are numbers": ("""errors = '[1, null, "x", {}]', worker = 'poison.Fails'""", FAILS),
    "no such worker": ("worker = 'Elixir.MyApp.Worker'", FAILS),
    "a worker's name of 10,000 characters": (f"worker = '{'x' * 10_000}'", FAILS),
    "a worker's name that is no name": ("worker = 'a''\"\n; -- '", FAILS),
    "no attempt left": ("attempt = 20, max_attempts = 20", FAILS),
    "as many attempts as there can be": ("attempt = 32766, max_attempts = 32767", RUNS),
    "year 9999": ("scheduled_at = '9999-12-31 23:59:59.999999'", RUNS),
    "scheduled for the year 9999": ("state = 'scheduled', scheduled_at = '9999-12-31 23:59:59'", STAYS),
    "a snooze that was counted as text": ("""meta = '{"snoozed": "x", "rescued": "x"}'""", RUNS),
}
ROWS = {
    "postgresql": {
        **COMMON,
        "10 MB of args": ("args = jsonb_build_object('a', repeat('x', 10000000))", RUNS),
        "errors are 5,000 levels deep": (f"errors = '[{_DEEP}]'", RUNS),
        "tags hold NULL": ("tags = '{NULL}'", RUNS),
        "tags are a matrix": ("tags = '{{a,b},{c,d}}', attempted_by = '{{a,b},{c,d}}'", RUNS),
        "never": ("scheduled_at = 'infinity', completed_at = 'infinity'", RUNS),
        "always": ("scheduled_at = '-infinity', inserted_at = '-infinity'", RUNS),
        "before Christ": ("scheduled_at = '4713-01-01 BC', attempted_at = '0044-03-15 BC'", RUNS),
        "year 294276": ("scheduled_at = '294276-12-31', inserted_at = '20000-01-01'", RUNS),
        "scheduled for never": ("state = 'scheduled', scheduled_at = 'infinity'", STAYS),
        "scheduled for year 20000": ("state = 'retryable', scheduled_at = '20000-01-01'", STAYS),
        "due before Christ": ("state = 'retryable', scheduled_at = '0044-03-15 BC'", RUNS),
    },
    "sqlite": {
        **COMMON,
        "10 MB of args": ("args = json_object('a', hex(zeroblob(5000000)))", RUNS),
        "args are no JSON": ("args = 'no JSON'", FAILS),
        "args are nothing": ("args = ''", FAILS),
        "args are bytes": ("args = x'ff00'", FAILS),
        "args are not UTF-8": ("args = CAST(x'7b2261223a22ff227d' AS TEXT)", FAILS),
        "meta is no JSON": ("meta = 'no JSON'", FAILS),
        "errors are no JSON": ("errors = 'no JSON', worker = 'poison.Fails'", FAILS),
        "tags are no JSON": ("tags = 'no JSON', attempted_by = 'no JSON'", RUNS),
        "soon": ("scheduled_at = 'soon'", RUNS),
        "a time of nothing": ("scheduled_at = '', inserted_at = 5, completed_at = x'00'", RUNS),
        "month 13": ("scheduled_at = '2024-13-41 00:00:00.000000'", RUNS),
        "scheduled for soon": ("state = 'scheduled', scheduled_at = 'soon'", STAYS),
        "one attempt and a half": ("attempt = 0.5, max_attempts = 1.5", RUNS),
        "as many attempts as you like": ("max_attempts = 'x'", RUNS),
    },
}
#: Executing rows that no node runs. The lifeline rescues each of them, whatever its owner.
ORPHANS = {
    "postgresql": [
        "attempted_by = '{}'",
        "attempted_by = '{NULL,NULL}'",
        "attempted_by = '{{a,b},{c,d}}'",
        "attempted_by = '{node,no uuid}', meta = '[1]'",
        "attempted_by = '{node,owner}', attempted_at = NULL",
        f"attempted_by = '{{node,owner}}', meta = '{{\"a\": {_DEEP}}}'",
        "attempted_by = '{node,owner}', attempted_at = '-infinity', errors = 'null'",
    ],
    "sqlite": [
        "attempted_by = '[]'",
        "attempted_by = '[null, null]'",
        "attempted_by = 'null'",
        "attempted_by = '[1, 2]', meta = '[1]'",
        "attempted_by = 'no JSON', attempted_at = NULL",
        "attempted_by = '[\"node\", \"owner\"]', meta = 'no JSON'",
        "attempted_by = '[\"node\", \"owner\"]', attempted_at = '', errors = 'no JSON'",
    ],
}
GOOD_ORPHAN = {
    "postgresql": "attempted_by = '{node,owner}'",
    "sqlite": 'attempted_by = \'["node", "owner"]\'',
}
NEVER = {"postgresql": "'infinity'", "sqlite": "'soon'"}
OLD = "'2020-01-01 00:00:00.000000'"
REASON = {
    "postgresql": "SELECT errors -> -1 ->> 'error' FROM oban_jobs WHERE id = :id",
    "sqlite": "SELECT json_extract(errors, '$[#-1].error') FROM oban_jobs WHERE id = :id",
}


class Good(Worker, name="poison.Good"):
    """Reads its args, and takes a moment."""

    async def process(self, job: Job) -> None:
        job.args.get("a")
        job.meta.get("a")
        await asyncio.sleep(0.025)


class Fails(Worker, name="poison.Fails"):
    async def process(self, job: Job) -> None:
        raise ValueError("as it does")


async def spoil(url: URL, rows: Iterable[str], state: str = "available") -> list[int]:
    """Insert rows at the head of the queue, corrupt them like another program, and return their ids."""

    def insert() -> list[int]:
        with recording.connected(url) as connection:
            return [_spoil(connection, changes, state) for changes in rows]

    # In a thread, as the event loop can be needed to end the transaction that this waits for.
    return await asyncio.to_thread(insert)


def _spoil(connection: Connection, changes: str, state: str) -> int:
    # Suspended, so it is not fetched before it is corrupted.
    values = f"'poison.Good', 'suspended', {int(state == 'executing')}, 1, {OLD}, {OLD}"
    inserted = connection.exec_driver_sql(
        "INSERT INTO oban_jobs (worker, state, attempt, max_attempts, scheduled_at, attempted_at)"
        f" VALUES ({values}) RETURNING id"
    )
    id_: int = inserted.scalar_one()
    inserted.close()
    if not changes.startswith("state = "):
        changes += f", state = '{state}'"
    connection.exec_driver_sql(f"UPDATE oban_jobs SET {changes} WHERE id = {id_}")
    return id_


def state_of(connection: Connection, id_: int) -> str:
    state = connection.scalar(text("SELECT CAST(state AS text) FROM oban_jobs WHERE id = :id"), {"id": id_})
    return str(state)


def reason_of(connection: Connection, id_: int) -> str | None:
    """The last entry of `errors`, as the database reads it."""
    reason: str | None = connection.scalar(text(REASON[connection.dialect.name]), {"id": id_})
    return reason


async def time_of(oban: Oban) -> float:
    """Insert good jobs, and return the seconds until all of them have ended."""
    await oban.enqueue_many([Good.new(priority=1) for _ in range(GOOD)])
    since = time.monotonic()

    def done() -> bool:
        with recording.connected(oban.engine.url) as connection:
            statement = "SELECT count(*) FROM oban_jobs WHERE priority = 1 AND state <> 'completed'"
            return not connection.scalar(text(statement))

    await eventually(lambda: asyncio.to_thread(done), 50)
    return time.monotonic() - since


OPTIONS: dict[str, Any] = {
    "queues": {"default": 10},
    "lease": 1.0,
    "rescue_after": 1.0,
    "poll_interval": 0.2,
    "stage_interval": 0.2,
    "prune_interval": 0.1,
    "shutdown_grace_period": 1.0,
}


@pytest.fixture(autouse=True)
def no_collections() -> Iterator[None]:
    """Turn the garbage collector off. What it calls deep in a nested document would have no stack left."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(params=["asyncpg", "psycopg, own engine", "sqlite, own engine"])
async def target(request: pytest.FixtureRequest) -> AsyncIterator[URL | AsyncEngine]:
    """The first argument of `Oban`: a URL, or an engine of the application."""
    driver, *own = request.param.split(", ")
    url: URL = request.getfixturevalue("sqlite_url" if driver == "sqlite" else "postgresql_url")
    url = url.set(drivername="sqlite+aiosqlite" if driver == "sqlite" else f"postgresql+{driver}")
    if not own:
        yield url
        return
    engine = create_async_engine(url)
    yield engine
    await engine.dispose()


async def ended(connection: Connection, ids: list[int]) -> list[str]:
    """Wait until these jobs are neither available nor executing, and return their states."""
    states: list[str] = []

    def at_rest() -> bool:
        states[:] = [state_of(connection, id_) for id_ in ids]
        return not {"available", "executing"} & set(states)

    await eventually(at_rest)
    return states


# Rounds are repeated until one of each kind was undisturbed.
@pytest.mark.alone
async def test_spoilt_rows_delay_only_themselves(target: URL | AsyncEngine) -> None:
    clean: list[float] = []
    spoilt: list[float] = []
    async with Oban(target, **OPTIONS) as oban:
        url = oban.engine.url
        rows = ROWS[url.get_backend_name()]
        assert len(rows) >= 25
        # The best time of each counts, as the machine can be busy.
        while not spoilt or min(spoilt) > min(clean) * 1.2:
            assert len(spoilt) < 5, (clean, spoilt)
            clean.append(await time_of(oban))
            made = await spoil(url, (changes for changes, _ in rows.values()))
            spoilt.append(await time_of(oban))
            await ended_as_expected(url, dict(zip(rows, made, strict=True)))


async def ended_as_expected(url: URL, ids: dict[str, int]) -> None:
    rows = ROWS[url.get_backend_name()]
    expected = {which: state for which, (_, state) in rows.items() if state != STAYS}
    with recording.connected(url) as connection:
        states = await ended(connection, [ids[which] for which in expected])
        assert dict(zip(expected, states, strict=True)) == expected
        for which, (_, state) in rows.items():
            if state == FAILS:
                reason = reason_of(connection, ids[which])
                assert isinstance(reason, str), which
                assert 5 < len(reason) < 10_000, which
            elif state == STAYS:
                assert state_of(connection, ids[which]) in ("scheduled", "retryable"), which


async def test_maintenance_goes_past_spoilt_rows(target: URL | AsyncEngine) -> None:
    options = OPTIONS | {"queues": {"elsewhere": 1}, "retention": {"completed": 60}}
    async with Oban(target, **options) as oban:
        url = oban.engine.url
        database = url.get_backend_name()
        # The good row is the last one in any order.
        for state in ("completed", "cancelled", "discarded", "retryable", "scheduled"):
            rows = (changes for changes, _ in ROWS[database].values() if "state" not in changes)
            await spoil(url, rows, state)
        await spoil(
            url, [f"completed_at = {at}" for at in ("'9999-12-31'", "NULL", NEVER[database])], "completed"
        )
        (old,) = await spoil(url, [f"completed_at = {OLD}, worker = 'good'"], "completed")
        (due,) = await spoil(url, ["worker = 'good'"], "scheduled")
        orphans = await spoil(url, [*ORPHANS[database], GOOD_ORPHAN[database]], "executing")
        with recording.connected(url) as connection:
            await eventually(lambda: state_of(connection, due) == "available")
            await eventually(lambda: state_of(connection, old) == "None")
            assert set(await ended(connection, orphans)) == {"discarded"}
            for id_ in orphans:
                assert "was lost while it ran attempt 1 of 1" in (reason_of(connection, id_) or "")


async def test_spoilt_rows_are_listed_and_managed(target: URL | AsyncEngine) -> None:
    async with Oban(target) as oban:
        url = oban.engine.url
        database = url.get_backend_name()
        unreadable = {"args are not UTF-8"} if isinstance(target, AsyncEngine) else set()
        rows = [changes for which, (changes, _) in ROWS[database].items() if which not in unreadable]
        ids = await spoil(url, rows) + await spoil(url, ORPHANS[database], "executing")
        jobs = await oban.list_jobs()
        assert [job.id for job in jobs] == ids
        assert [await oban.get_job(id_) is not None for id_ in ids] == [True] * len(ids)
        assert "Job(id=" in repr(jobs)
        assert len(await oban.update_many_jobs(jobs, {"priority": 3})) == len(ids)
        assert await oban.cancel_many_jobs(jobs) == len(ids)
        assert await oban.retry_many_jobs(jobs) == len(ids)
        assert {(job.state, job.priority) for job in jobs} == {(JobState.AVAILABLE, 3)}
        assert await oban.delete_many_jobs(jobs) == len(ids)
        assert await oban.list_jobs() == []
