"""`Oban.check_node`: a node under each failure of readiness and of liveness, and its recovery."""

import asyncio
import gc
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from sqlalchemy import URL

from oban import Job, JobState, NodeCheck, Oban, SyncOban, Worker
from oban.runner import node_check
from tests.support.databases import SQLiteFactory
from tests.support.internals import refresher_of
from tests.support.jobs import reaches
from tests.support.options import BRIEF
from tests.support.relay import Relay
from tests.support.schema import render
from tests.support.waiting import eventually
from tests.support.workers import Noop

READY = NodeCheck(True, True)
#: Notices an outage soon. The lease is long, so that heartbeats that fail are not stale as well.
FAST: dict[str, Any] = {"heartbeat_interval": 0.05, "stage_interval": 0.05, "lease": 60.0, **BRIEF}
NO_DATABASE = "the database does not answer for more than 0.3 s"
DEAF = "the listener has heard no notifications for more than 0.3 s"


@pytest.fixture(autouse=True)
def short_graces(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BLOCKED_AFTER", "DATABASE_GRACE", "LISTENER_GRACE"):
        monkeypatch.setattr(node_check, name, 0.3)
    # Services try again soon, so that a node recovers soon.
    monkeypatch.setattr("oban.backoff.LONGEST_PAUSE", 0.1)
    monkeypatch.setattr("oban.notifier.health.RETRY_INTERVAL", 0.05)
    monkeypatch.setattr("oban.notifier.health.ECHO_TIMEOUT", 0.1)


class Blocks(Worker, name="tests.health.Blocks"):
    """Blocks the event loop until a test lets it go on."""

    let_go = threading.Event()

    async def process(self, job: Job) -> None:
        self.let_go.wait(30)


class Waits(Worker, name="tests.health.Waits"):
    async def process(self, job: Job) -> None:
        await asyncio.sleep(60)


@asynccontextmanager
async def ready_node(url: URL | str, **options: Any) -> AsyncIterator[Oban]:
    async with Oban(url, queues={"default": 2}, **{**FAST, **options}) as oban:
        await eventually(lambda: oban.check_node() == READY)
        yield oban


async def has(oban: Oban, problem: str) -> NodeCheck:
    """Wait until a node has a problem, and return what it says then."""

    def found() -> NodeCheck | None:
        check = oban.check_node()
        return check if any(text.startswith(problem) for text in check.problems) else None

    check: NodeCheck = await eventually(found)
    assert not check.is_ready
    return check


async def test_a_node_is_ready_between_its_start_and_its_stop(url: URL) -> None:
    oban = Oban(url, queues={"default": 2}, **FAST)
    assert oban.check_node() == NodeCheck(True, False, ("the node has not started",))
    for _ in range(2):
        async with oban:
            await eventually(lambda: oban.check_node() == READY)
            await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)
        assert oban.check_node() == NodeCheck(True, False, ("the node has stopped",))


async def test_a_node_that_starts_is_not_ready(url: URL) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def lifespan(client: Oban) -> AsyncIterator[None]:
        entered.set()
        await go_on.wait()
        yield

    oban = Oban(url, queues={"default": 2}, lifespan=lifespan, **FAST)
    starting = asyncio.create_task(oban.start())
    await entered.wait()
    assert oban.check_node() == NodeCheck(True, False, ("the node is starting",))
    go_on.set()
    await starting
    await eventually(lambda: oban.check_node() == READY)
    await oban.stop()


async def test_a_node_that_stops_is_not_ready_while_its_last_job_runs(url: URL) -> None:
    async with ready_node(url, shutdown_grace_period=30) as oban:
        await reaches(oban, await oban.enqueue(Waits.new()), JobState.EXECUTING)
        stopping = asyncio.create_task(oban.stop())
        await has(oban, "the node is stopping")
        assert oban.check_node() == NodeCheck(True, False, ("the node is stopping",))
        await oban.stop()
        await stopping


async def test_a_blocked_event_loop_makes_a_node_neither_live_nor_ready(url: URL) -> None:
    Blocks.let_go.clear()
    checks: list[NodeCheck] = []
    async with ready_node(url) as oban:

        def watch() -> None:
            # As a health endpoint does, from a thread.
            until = time.monotonic() + 20
            while time.monotonic() < until and (check := oban.check_node()) == READY:
                time.sleep(0.02)
            checks.append(check)
            Blocks.let_go.set()

        thread = threading.Thread(target=watch)
        thread.start()
        # The job can begin before this returns.
        job = await oban.enqueue(Blocks.new())
        await reaches(oban, job, JobState.COMPLETED)
        thread.join()
        assert checks == [NodeCheck(False, False, ("the event loop has been blocked for more than 0.3 s",))]
        await eventually(lambda: oban.check_node() == READY)


# The end of the loop can interrupt a service that connects, and nobody closes its connection then.
@pytest.mark.filterwarnings("ignore:.*deleted before being closed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_node_whose_loop_was_closed_is_not_live(url: URL) -> None:
    oban = Oban(url, queues={"default": 2}, **BRIEF)

    async def start(oban: Oban) -> None:
        await oban.start()
        await eventually(lambda: oban.check_node() == READY)
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)

    asyncio.run(start(oban))
    lost = NodeCheck(False, False, ("the event loop has ended without a stop",))
    assert oban.check_node() == lost
    # Whoever notices it first clears what is left of the node.
    assert not oban.is_leader
    assert oban.check_node() == lost
    del oban
    # Not in a later test.
    gc.collect()


@pytest.mark.parametrize("failure", ["refused", pytest.param("swallowed", marks=pytest.mark.slow)])
async def test_a_node_without_its_server_is_live_and_not_ready_until_that_is_back(
    server_url: URL, failure: str
) -> None:
    # Heartbeats and fetches that get no answer end after a quarter of the lease.
    options = {"lease": 2.0, "statement_timeout": 0.5}
    async with Relay(server_url) as relay, ready_node(relay.url, **options) as oban:
        relay.refuses = failure == "refused"
        relay.swallows = failure == "swallowed"
        if relay.refuses:
            relay.cut()
        assert (await has(oban, NO_DATABASE)).is_live
        check = await has(oban, "the last heartbeat is older than three quarters of the lease")
        assert check.is_live
        relay.refuses = relay.swallows = False
        relay.cut()
        await eventually(lambda: oban.check_node() == READY, 20)
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)


async def test_connections_that_are_lost_once_do_not_make_a_node_unready(
    server_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DATABASE_GRACE", "LISTENER_GRACE"):
        monkeypatch.setattr(node_check, name, 60.0)
    checks: set[NodeCheck] = set()
    async with Relay(server_url) as relay, ready_node(relay.url) as oban:
        relay.cut()
        job = await oban.enqueue(Noop.new())
        while (row := await oban.get_job(job.id)) is None or row.state != JobState.COMPLETED:
            checks.add(oban.check_node())
    assert checks == {READY}


async def test_heartbeats_that_fail_for_a_moment_do_not_make_a_node_unready(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_check, "DATABASE_GRACE", 30.0)
    async with ready_node(url) as oban:
        refresher = refresher_of(oban)
        with monkeypatch.context() as patch:

            async def fail() -> float | None:
                raise ConnectionError("connection lost")

            patch.setattr(refresher, "tick", fail)
            await eventually(lambda: refresher.failures > 1)
            assert refresher.failing_for() > 0
            assert oban.check_node() == READY
        await eventually(lambda: refresher.failing_for() == 0)
        assert oban.check_node() == READY


@pytest.mark.slow
async def test_a_locked_sqlite_file_makes_a_node_unready_until_it_is_free(
    sqlite_factory: SQLiteFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oban.dialects.sqlite.dialect.BUSY_TIMEOUT", 0.1)
    url = sqlite_factory.create()
    async with ready_node(url, lease=2.0, statement_timeout=0.5) as oban:
        with closing(sqlite3.connect(str(url.database), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert (await has(oban, NO_DATABASE)).is_live
        await eventually(lambda: oban.check_node() == READY)
    sqlite_factory.drop(url)


async def test_stale_heartbeats_make_a_node_unready(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ready_node(url, lease=1.0) as oban:
        resume = threading.Event()
        tick = refresher_of(oban).tick

        async def hang() -> float | None:
            # It neither fails nor ends. Its event loop is not the one of the test.
            await asyncio.to_thread(resume.wait, 30)
            return await tick()

        monkeypatch.setattr(refresher_of(oban), "tick", hang)
        check = await has(oban, "the last heartbeat is older than three quarters of the lease")
        assert check == NodeCheck(
            True, False, ("the last heartbeat is older than three quarters of the lease",)
        )
        resume.set()
        await eventually(lambda: oban.check_node() == READY)


async def test_a_listener_that_never_hears_its_probe_keeps_a_node_unready(server_url: URL) -> None:
    elsewhere = render(server_url.set(database="postgres"))
    async with Oban(server_url, queues={"default": 2}, listen_url=elsewhere, **FAST) as oban:
        check = await has(oban, "the listener has not heard its first probe yet")
        assert check.is_live
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)
        assert not oban.check_node().is_ready


# psycopg waits five seconds for the answer to its request to cancel a statement.
@pytest.mark.parametrize(
    "server_url", ["asyncpg", pytest.param("psycopg", marks=pytest.mark.slow)], indirect=True
)
async def test_a_listener_that_becomes_deaf_makes_a_node_unready(
    server_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oban.notifier.health.CHECK_INTERVAL", 0.05)
    monkeypatch.setattr("oban.notifier.listen.KEEPALIVE_INTERVAL", 0.5)
    monkeypatch.setattr("oban.notifier.listen.CLOSE_TIMEOUT", 0.1)
    async with Relay(server_url) as relay, ready_node(server_url, listen_url=render(relay.url)) as oban:
        relay.forget()
        assert await has(oban, DEAF) == NodeCheck(True, False, (DEAF,))
        # The keepalive finds that the connection is lost.
        await eventually(lambda: oban.check_node() == READY)


async def test_a_listener_that_cannot_connect_makes_a_node_unready(server_url: URL) -> None:
    async with Relay(server_url) as relay, ready_node(server_url, listen_url=render(relay.url)) as oban:
        relay.refuses = True
        relay.cut()
        assert await has(oban, DEAF) == NodeCheck(True, False, (DEAF,))
        relay.refuses = False
        await eventually(lambda: oban.check_node() == READY)


async def test_a_node_that_only_polls_needs_no_listener(url: URL) -> None:
    async with Oban(url, queues={"default": 2}, notifier="poll", **FAST) as oban:
        assert oban.check_node() == READY


async def test_a_client_without_queues_is_live_and_never_ready(url: URL) -> None:
    expected = NodeCheck(True, False, ("this client has no queues to run",))
    async with Oban(url) as oban:
        assert oban.check_node() == expected
    assert SyncOban(url.set(drivername=url.get_backend_name())).check_node() == expected
