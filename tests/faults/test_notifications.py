"""F16: notifications that are lost, duplicated, meaningless or too long delay nothing else."""

import base64
import gzip
import logging
import os
import random
import resource
import sys
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from oban import JobState, Oban
from oban.notifier.base import MAX_INFLATED, decode
from oban.repository import fetch
from tests.support.databases import PostgreSQLFactory, SQLiteFactory
from tests.support.jobs import reaches
from tests.support.options import BRIEF, NO_POLLING
from tests.support.pooler import pooler
from tests.support.waiting import eventually, quiet
from tests.support.workers import Noop, Runs

GARBAGE = 10_000
TERMINATE = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND query ILIKE '%LISTEN%'"
)
NOTIFY = text("SELECT pg_notify(:channel, payload) FROM unnest(CAST(:payloads AS text[])) AS payload")


def zipped(raw: bytes) -> str:
    return base64.b64encode(gzip.compress(raw)).decode()


def bomb() -> str:
    """A payload of the maximum length that inflates to as much as possible."""
    size = 6_500_000
    while len(payload := zipped(b'{"a": "' + b" " * size + b'"}')) > 7_999:
        size -= 100_000
    return payload


#: Each is sent many times, with variations, on both channels.
SENSELESS = (
    *("", "x", "{", "}", "[1]", "null", "5", '"text"', "NaN", "\\", "ä" * 100, "\U0001f4a5", "\x01"),
    *('{"queue": null}', '{"queue": 5}', '{"queue": ["default"]}', '{"queue": {"a": 1}}', '{"queue": ""}'),
    *('{"queue": "nobody"}', '{"queue": "\\u0000"}', '{"queue": "\\ud800"}', '{"queues": "default"}'),
    *('{"action": "stored"}', '{"action": "stored", "signal": 5}', '{"action": "stored", "signal": {}}'),
    *('{"action": 5}', '{"action": null}', '{"action": ["pkill"]}', '{"action": "unheard of"}'),
    *(
        f'{{"action": "pkill", "job_id": {id_}}}'
        for id_ in ("null", '"1"', "[1]", "1.5", "true", "-1", "0", str(2**63), "9" * 400)
    ),
    *(
        f'{{"action": "stage", "in": {at}}}'
        for at in ("1e400", "-1e400", "NaN", '"1"', "null", "-5", "9" * 400)
    ),
    '{"action": "stage", "in": {"a": 1}}',
    "[" * 5000,
    '{"a": ' * 1000 + "1" + "}" * 1000,
    '{"queue": ' + "[" * 900 + "]" * 900 + "}",
    '{"queue": "' + "q" * 7_980 + '"}',
    "{" + " " * 7_998,
    base64.b64encode(b"not zipped").decode(),
    base64.b64encode(gzip.compress(b'{"queue": "default"}')[:-5]).decode(),
    base64.b64encode(gzip.compress(b"x" * 500)[:12] + b"\xff" * 20).decode(),
    zipped(b"[1]"),
    zipped(b"\xff\xfe"),
    zipped(b'{"a": ' * 100_000),
    bomb(),
)


@pytest.fixture
def randomly() -> random.Random:
    seed = int(os.environ.get("OBAN_SEED") or random.SystemRandom().randrange(2**32))
    print(f"OBAN_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(params=["asyncpg", "psycopg"])
def listened(request: pytest.FixtureRequest, postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """A fresh PostgreSQL database, through each driver."""
    made = postgresql_factory.create()
    yield made.set(drivername=f"postgresql+{request.param}")
    postgresql_factory.drop(made)


@pytest.fixture
async def sender(listened: URL) -> AsyncIterator[AsyncEngine]:
    """The engine of another client."""
    engine = create_async_engine(listened)
    yield engine
    await engine.dispose()


async def send(sender: AsyncEngine, channel: str, *payloads: str) -> None:
    async with sender.begin() as connection:
        await connection.execute(NOTIFY, {"channel": f"public.oban_{channel}", "payloads": list(payloads)})


async def hears_at_once(client: Oban) -> None:
    """Check that a new job starts and that a cancel arrives without polling."""
    runs = Runs()
    job = await client.enqueue(runs.worker.new())
    running = await runs.begun(1)
    await client.cancel_job(job)
    await eventually(running.cancelled, timeout=2)
    runs.finish(1)
    await reaches(client, await client.enqueue(Noop.new()), JobState.COMPLETED, timeout=2)


async def test_a_job_starts_within_the_poll_interval_when_every_notification_is_lost(listened: URL) -> None:
    runs = Runs()
    async with (
        pooler(listened, servers=None) as deaf,
        Oban(deaf.url, queues={"default": 5}, **BRIEF) as oban,
        Oban(listened, name="client") as client,
    ):
        for number in range(1, 4):
            await client.enqueue(runs.worker.new())
            # The poll interval of one second, plus one second.
            await eventually(lambda: len(runs.jobs) == number, timeout=2)  # noqa: B023
        assert await client.cancel_job(runs.jobs[0])
        await eventually(runs.jobs[0].cancelled, timeout=2)
        runs.finish_all()
        await reaches(oban, runs.jobs[2], JobState.COMPLETED)
        assert deaf.dropped >= 4


async def test_ten_thousand_meaningless_payloads_do_no_harm(
    listened: URL, sender: AsyncEngine, randomly: random.Random, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        Oban(listened, queues={"default": 5}, **NO_POLLING),
        Oban(listened, name="client") as client,
    ):
        await hears_at_once(client)
        before = most_memory()
        sent = 0
        while sent < GARBAGE:
            for channel in ("insert", "signal"):
                batch = [vary(payload, randomly) for payload in randomly.sample(SENSELESS, 40)]
                # PostgreSQL drops duplicates within a transaction, so each payload is sent in another one.
                await send(sender, channel, *batch)
                await send(sender, channel, *batch[:10])
                sent += 50
        await hears_at_once(client)
        # In KB, and on some systems in bytes.
        assert most_memory() < before + 50e6
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    # Per channel, one message for garbage and one for payloads without meaning.
    texts = [record.getMessage() for record in said if record.levelno == logging.WARNING]
    assert 1 <= len(texts) <= 4, texts
    assert all(text.startswith("ignored ") for text in texts)
    assert max(map(len, texts)) < 400
    assert len(said) <= len(texts) + 1


def most_memory() -> int:
    """The peak memory of this process in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def vary(payload: str, randomly: random.Random) -> str:
    """The payload itself in most cases, else truncated or with one character changed."""
    at = randomly.randrange(len(payload) + 1)
    match randomly.randrange(4):
        case 0:
            return payload[:at]
        case 1:
            return (payload[:at] + randomly.choice('{}[]"\\x0é\x7f') + payload[at + 1 :])[:3_900]
    return payload


async def test_a_payload_that_inflates_to_megabytes_is_not_inflated() -> None:
    payload = bomb()
    assert 7_000 < len(payload) < 8_000
    tracemalloc.start()
    assert decode(payload) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * MAX_INFLATED


async def test_a_listener_that_is_killed_repeatedly_listens_and_polls_once_each_time(
    listened: URL, sender: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    turn = fetch.acknowledge_and_fetch

    def counted(*arguments: Any) -> Any:
        looks.append("turn")
        return turn(*arguments)

    monkeypatch.setattr(fetch, "acknowledge_and_fetch", counted)
    async with (
        Oban(listened, queues={"default": 5}, **NO_POLLING),
        Oban(listened, name="client") as client,
    ):
        for _ in range(5):
            await quiet()
            looks.clear()
            async with sender.connect() as connection:
                assert len((await connection.execute(TERMINATE)).all()) == 1
            # Only the new listener polls.
            await eventually(lambda: looks)
            await quiet()
            assert len(looks) == 1
            await reaches(client, await client.enqueue(Noop.new()), JobState.COMPLETED, timeout=2)
        await hears_at_once(client)


STRANGE = (
    "a'b",
    'a"b',
    "a\\b",
    "\U0001f600" * 50,
    "ä" * 300,
    "q" * 1_024,
    "q" * 5_000,
    "€" * 3_000,
    " ",
    "null",
)


async def test_rows_of_strange_queues_are_inserted_staged_and_do_not_disturb_others(
    listened: URL, sender: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        Oban(listened, queues={"default": 5}, **{**NO_POLLING, "stage_interval": 0.1}),
        Oban(listened, name="client") as client,
    ):
        due = await client.enqueue(Noop.new(schedule_in=0.3))
        async with sender.begin() as connection:
            for state in ("available", "scheduled", "retryable"):
                await connection.execute(
                    text(
                        "INSERT INTO oban_jobs (state, queue, worker) SELECT"
                        " CAST(:state AS oban_job_state), queue, 'w'"
                        " FROM unnest(CAST(:queues AS text[])) AS queue"
                    ),
                    {"state": state, "queues": [*STRANGE, "q" * 9_000, "\U0001f600" * 2_500]},
                )
        # Staged and announced together with them.
        await reaches(client, due, JobState.COMPLETED, timeout=5)

        async def staged() -> bool:
            async with sender.connect() as connection:
                found = await connection.execute(
                    text("SELECT DISTINCT state FROM oban_jobs WHERE worker = 'w'")
                )
                return set(found.scalars()) == {"available"}

        await eventually(staged)
        await hears_at_once(client)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_rows_with_queues_that_are_not_strings_are_staged_on_sqlite(
    sqlite_factory: SQLiteFactory, caplog: pytest.LogCaptureFixture
) -> None:
    url = sqlite_factory.create()
    async with Oban(url, queues={"default": 5}, **{**NO_POLLING, "stage_interval": 0.1}) as oban:
        due = await oban.enqueue(Noop.new(schedule_in=0.3))
        async with oban.engine.begin() as connection:
            for queue in (b"\xff\xfe", "a\x00b", "q" * 9_000, "a'b"):
                await connection.execute(
                    text("INSERT INTO oban_jobs (state, queue, worker) VALUES ('scheduled', :queue, 'w')"),
                    {"queue": queue},
                )
        await reaches(oban, due, JobState.COMPLETED, timeout=5)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    sqlite_factory.drop(url)
