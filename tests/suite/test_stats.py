"""Statistics: jobs by queue and state, the oldest that wait, what has finished, and the nodes."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import TypeAdapter
from sqlalchemy import URL, delete, insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from oban import JobState, Oban, Stats, SyncOban
from oban.errors import InvalidArgument
from oban.models import Leader, Producer, Queue
from oban.repository.stats import Finished
from tests.support.databases import DATABASES
from tests.support.rows import STATES, delete_rows, insert_rows, just_now, lasting_url, row

ZEROS: dict[str, int] = {state.value: 0 for state in JobState}


@pytest.fixture(scope="module", params=DATABASES)
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture
async def client(oban: Oban) -> Oban:
    """A client of empty tables."""
    await delete_rows(oban.engine)
    async with oban.engine.begin() as connection:
        for model in (Leader, Producer, Queue):
            await connection.execute(delete(model))
    return oban


def ago(**units: float) -> datetime:
    return datetime.now(UTC) - timedelta(**units)


async def send_heartbeats(engine: AsyncEngine, *producers: dict[str, Any]) -> None:
    def values(number: int, producer: dict[str, Any]) -> dict[str, Any]:
        common = {"uuid": UUID(int=number), "name": "Oban", "node": "n1", "queue": "mail", "meta": {}}
        return {**common, "started_at": ago(minutes=5), "updated_at": ago(seconds=2), **producer}

    rows = [values(number, producer) for number, producer in enumerate(producers)]
    async with engine.begin() as connection:
        await connection.execute(insert(Producer), rows)


async def test_an_empty_instance_has_no_queues(client: Oban) -> None:
    stats = await client.stats()
    assert (stats.queues, stats.nodes, stats.settings) == ((), (), ())
    assert (stats.due, stats.leader, stats.counts) == (0, None, ZEROS)
    assert just_now(stats.at)


@pytest.mark.parametrize("count_limit", [None, 3])
async def test_jobs_are_counted_by_queue_and_state(client: Oban, count_limit: int | None) -> None:
    jobs = [row(state, queue="all") for number, state in enumerate(STATES) for _ in range(number + 1)]
    await insert_rows(client.engine, *jobs, row("completed", queue="few"))
    stats = await client.stats(count_limit=count_limit)
    numbers = dict(zip(STATES, range(1, 9), strict=True))
    most = count_limit or 8
    shown = {state: min(number, most) for state, number in numbers.items()}
    assert [(queue.queue, queue.status) for queue in stats.queues] == [("all", "idle"), ("few", "idle")]
    assert [queue.counts for queue in stats.queues] == [shown, {**ZEROS, "completed": 1}]
    assert set(stats.queues[0].truncated) == {state for state, number in numbers.items() if number > most}
    assert stats.counts == {**shown, "completed": shown["completed"] + 1}
    assert stats.count_limit == count_limit
    assert stats.queues[1].truncated == ()


async def test_the_oldest_available_job_is_found_whatever_its_priority(client: Oban) -> None:
    oldest = ago(minutes=10)
    jobs = [
        row(queue="mail", priority=priority, scheduled_at=oldest if priority == 7 else ago(minutes=priority))
        for priority in range(10)
    ]
    await insert_rows(client.engine, *jobs, row("scheduled", queue="later"))
    later, mail = (await client.stats()).queues
    assert (later.oldest_available_at, later.oldest_available_age) == (None, None)
    assert mail.oldest_available_at is not None
    assert abs(mail.oldest_available_at - oldest) < timedelta(milliseconds=2)
    assert 600 <= (mail.oldest_available_age or 0) < 660


async def test_due_jobs_and_those_that_have_finished_lately_are_counted(client: Oban) -> None:
    finished = [
        row(state, **{f"{state}_at": ago(minutes=minutes)})
        for state, number in (("completed", 3), ("cancelled", 2), ("discarded", 1))
        for _ in range(number)
        for minutes in (0.1, 30, 61)
    ]
    due = [row(state, scheduled_at=ago(seconds=5)) for state in ("scheduled", "retryable")]
    await insert_rows(client.engine, *finished, *due, row("scheduled"), row("suspended"))
    stats = await client.stats()
    assert stats.due == 2
    windows = {state: (found.last_minute, found.last_hour) for state, found in stats.finished.items()}
    assert windows == {"completed": (3, 6), "cancelled": (2, 4), "discarded": (1, 2)}
    assert not any(found.truncated for found in stats.finished.values())


async def test_recent_jobs_are_counted_up_to_a_limit(client: Oban, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oban.repository.stats.MAX_RECENT", 3)
    finished = [row("completed", completed_at=ago(minutes=minutes)) for minutes in (0, 0, 8, 9, 10)]
    due = [row("scheduled", scheduled_at=ago(seconds=5)) for _ in range(5)]
    cancelled = [row("cancelled", cancelled_at=ago(minutes=2)) for _ in range(3)]
    await insert_rows(client.engine, *finished, *due, *cancelled)
    stats = await client.stats()
    assert stats.due == 3
    assert stats.finished["completed"] == Finished(last_minute=2, last_hour=3, truncated=True)
    assert stats.finished["cancelled"] == Finished(last_minute=0, last_hour=3, truncated=False)


async def test_a_queue_is_running_paused_partly_paused_or_idle(client: Oban) -> None:
    def on(node: str, queue: str, paused: bool = False, **more: Any) -> dict[str, Any]:
        meta = {"local_limit": 5, "paused": paused, "running": [1]}
        return {"node": node, "queue": queue, "meta": meta, **more}

    await send_heartbeats(
        client.engine,
        *(on(node, "running") for node in ("n1", "n2")),
        *(on(node, "paused", True) for node in ("n1", "n2")),
        *(on(node, "partly", node == "n1") for node in ("n2", "n1")),
        on("n3", "gone", updated_at=ago(minutes=2)),
        on("n1", "other", name="Other"),
    )
    await insert_rows(client.engine, row(queue="gone"))
    queues = {queue.queue: queue for queue in (await client.stats()).queues}
    assert {name: queue.status for name, queue in queues.items()} == {
        "running": "running",
        "paused": "paused",
        "partly": "partly paused",
        "gone": "idle",
    }
    assert (queues["running"].limit, queues["gone"].limit) == (10, None)
    assert [(node.node, node.paused, node.running) for node in queues["partly"].nodes] == [
        ("n1", True, 1),
        ("n2", False, 1),
    ]


async def test_stored_settings_are_told_for_each_queue_and_for_all_queues(client: Oban) -> None:
    await client.pause_all_queues()
    await client.scale_queue("mail", 3, node="n1")
    stats = await client.stats()
    assert [(queue.queue, queue.status) for queue in stats.queues] == [("mail", "idle")]
    assert [(row.node, row.limit) for row in stats.queues[0].settings] == [("n1", 3)]
    assert [(row.node, row.paused) for row in stats.settings] == [(None, True)]


async def test_nodes_are_put_together_from_their_heartbeats(client: Oban) -> None:
    seen = datetime.now(UTC).replace(microsecond=0)
    meta = {
        "version": "1.2.3",
        "pid": 7,
        "clock": (seen + timedelta(seconds=90)).isoformat(),
        "listener": {"kind": "listen", "hears": False},
    }
    await send_heartbeats(
        client.engine,
        {"queue": "mail", "meta": {**meta, "running": [1, 2]}, "updated_at": seen},
        {"queue": "default", "meta": {**meta, "running": [3]}, "updated_at": seen},
        {"queue": "mail", "meta": {**meta, "pid": 8}, "updated_at": ago(minutes=2)},
        {"node": "plain", "meta": {"clock": "noon", "listener": "x", "pid": True, "version": 3}},
    )
    async with client.engine.begin() as connection:
        identity = f"n1/{UUID(int=5)}"
        values = {"name": "Oban", "node": identity, "elected_at": seen, "expires_at": ago(minutes=-1)}
        await connection.execute(insert(Leader), [values])
    nodes = await client.list_nodes()
    found = [(node.node, node.pid, [info.queue for info in node.queues]) for node in nodes]
    assert found == [("n1", 7, ["default", "mail"]), ("n1", 8, ["mail"]), ("plain", None, ["mail"])]
    first, old, plain = nodes
    assert (first.alive, first.leader, first.clock_skew) == (True, True, 90)
    assert (first.version, first.listener, first.hears) == ("1.2.3", "listen", False)
    assert 0 <= first.heartbeat_age < 60 <= old.heartbeat_age
    assert (old.alive, old.leader) == (False, False)
    assert (plain.alive, plain.leader) == (True, False)
    assert (plain.version, plain.clock_skew, plain.listener, plain.hears) == (None, None, None, None)
    stats = await client.stats()
    assert [node.pid for node in stats.nodes] == [7, 8, None]
    assert stats.leader == "n1"


async def test_a_leader_of_another_implementation_has_the_name_of_its_node(client: Oban) -> None:
    async with client.engine.begin() as connection:
        values = {"name": "Oban", "node": "a/b", "elected_at": ago(minutes=1), "expires_at": ago(minutes=-1)}
        await connection.execute(insert(Leader), [values])
    assert (await client.stats()).leader == "a/b"


async def test_sync_clients_and_transactions_of_callers_see_the_same(client: Oban, url: URL) -> None:
    await insert_rows(client.engine, row(queue="mail"))
    driver = "psycopg" if "postgresql" in url.drivername else "pysqlite"
    with SyncOban(url.set(drivername=f"{url.get_backend_name()}+{driver}")) as sync:
        assert sync.stats().counts["available"] == 1
        assert sync.list_nodes() == []
    async with AsyncSession(client.engine) as session:
        await client.enqueue(await _another(client), session=session)
        assert (await client.stats(session)).counts["available"] == 2
        await session.rollback()


async def _another(client: Oban) -> Any:
    (job,) = await client.list_jobs()
    return type(job)(worker=job.worker, queue="mail")


async def test_they_are_plain_data_for_pydantic(client: Oban) -> None:
    await send_heartbeats(client.engine, {"meta": {"local_limit": 2}})
    await client.pause_queue("mail")
    stats = await client.stats()
    adapter = TypeAdapter(Stats)
    assert adapter.validate_json(adapter.dump_json(stats)) == stats


@pytest.mark.parametrize("count_limit", [0, -1, True, "5", 1.5, 2**63])
async def test_a_wrong_limit_is_refused(client: Oban, count_limit: Any) -> None:
    with pytest.raises(InvalidArgument, match="count_limit must be a positive integer"):
        await client.stats(count_limit=count_limit)
