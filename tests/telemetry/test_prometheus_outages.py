"""Scrapes while the database is down or slow, scrapes at the same time, and scrapes of forked processes."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import URL, event

from oban import Oban, SyncOban, migration
from oban.prometheus import ObanMetrics, metrics_app, sampler
from tests.support.databases import Factory, SQLiteFactory
from tests.support.relay import Relay
from tests.support.scraping import Scrape, scrape, scrape_wsgi
from tests.support.statements import recorded
from tests.support.waiting import eventually, slowdown
from tests.support.workers import Noop


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def sync_oban(sqlite_factory: SQLiteFactory) -> Iterator[SyncOban]:
    url = sqlite_factory.create()
    oban = SyncOban(url.set(drivername="sqlite"))
    yield oban
    oban.stop()
    sqlite_factory.drop(url)


@pytest.fixture
def brief_scrapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let scrapes wait for the database for half a second, as they do outside of tests."""
    monkeypatch.setattr(sampler, "PATIENCE", 0.5)


class Slow:
    """Lets the statements of an engine wait until `go_on` is set."""

    def __init__(self, oban: SyncOban) -> None:
        self.go_on = threading.Event()
        self.statements = 0
        event.listen(oban.engine, "before_cursor_execute", self._wait)

    def _wait(self, *_: Any) -> None:
        self.statements += 1
        self.go_on.wait(30)


async def test_a_scrape_while_the_server_is_silent_shows_the_last_sample(
    asyncpg_factory: Factory, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = asyncpg_factory.create()
    async with Relay(direct) as relay:
        oban = Oban(relay.url)
        metrics = ObanMetrics(oban, registry=registry, refresh_interval=1)
        app = metrics_app(metrics)
        await oban.enqueue(Noop.new())
        found = await scrape(app)
        assert (found.value("oban_up"), found.value("oban_jobs")) == (1, 1)
        monkeypatch.setattr(sampler, "PATIENCE", 2.0)
        relay.swallows = True
        await eventually(lambda: (metrics.sampler.age or 0) > 1)
        began_at = time.monotonic()
        found = await scrape(app)
        assert time.monotonic() - began_at < (sampler.PATIENCE + 1) * slowdown()
        assert found.value("oban_jobs") == 1
        # While the answer is late, further scrapes do not wait for it.
        began_at = time.monotonic()
        found = await scrape(app)
        assert time.monotonic() - began_at < sampler.PATIENCE * slowdown()

        async def is_down() -> bool:
            return (await scrape(app)).value("oban_up") == 0

        await eventually(is_down)
        found = await scrape(app)
        assert found.value("oban_jobs") == 1
        assert (found.value("oban_sample_age_seconds") or 0) > 1
        assert found.value("oban_jobs_enqueued_total") == 1
    asyncpg_factory.drop(direct)


async def test_a_scrape_without_a_database_shows_the_process(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    # Nothing listens there.
    oban = Oban("postgresql+asyncpg://app:geheim77@127.0.0.1:1/shop")
    app = metrics_app(oban, registry=registry)
    found = await scrape(app)
    assert found.value("oban_up") == 0
    assert found.value("oban_jobs") is found.value("oban_sample_age_seconds") is None
    assert found.value("oban_jobs_enqueued_total") is None
    assert found.value("oban_jobs_staged_total") == 0
    # A busy machine takes longer to fail than a scrape waits.
    [record] = await eventually(lambda: [one for one in caplog.records if one.name == "oban.prometheus"])
    assert "the metrics could not be read from the database" in record.getMessage()
    assert "geheim77" not in caplog.text + found.text
    await oban.stop()


async def test_a_database_that_comes_back_is_up_again(
    sqlite_factory: SQLiteFactory, registry: CollectorRegistry
) -> None:
    url = sqlite_factory.create(empty=True)
    oban = Oban(url)
    app = metrics_app(oban, registry=registry, refresh_interval=1)
    assert (await scrape(app)).value("oban_up") == 0
    made = sqlite_factory.create()
    assert url.database is not None
    assert made.database is not None
    os.replace(made.database, url.database)

    async def is_up() -> bool:
        return (await scrape(app)).value("oban_up") == 1

    await eventually(is_up)
    await oban.stop()
    sqlite_factory.drop(url)


@pytest.mark.usefixtures("brief_scrapes")
def test_one_thread_reads_for_all_scrapes(
    sync_oban: SyncOban, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(sync_oban)
    # As if reading took longer than an interval.
    monkeypatch.setattr(sampler, "TOLERANCE", 0.0)
    app = metrics_app(sync_oban, registry=registry)
    found: list[Scrape] = []
    threads = [threading.Thread(target=lambda: found.append(scrape_wsgi(app.wsgi))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8
    assert slow.statements == 1
    assert {one.value("oban_jobs") for one in found} == {None}
    monkeypatch.undo()
    slow.go_on.set()
    deadline = time.monotonic() + 30
    while scrape_wsgi(app.wsgi).value("oban_up") != 1:
        assert time.monotonic() < deadline
    # The sample is new enough for all further scrapes.
    statements = slow.statements
    for _ in range(5):
        scrape_wsgi(app.wsgi)
    assert slow.statements == statements


@pytest.mark.usefixtures("brief_scrapes")
async def test_scrapes_do_not_block_the_event_loop_of_the_application(
    sync_oban: SyncOban, registry: CollectorRegistry
) -> None:
    slow = Slow(sync_oban)
    app = metrics_app(sync_oban, registry=registry)
    task = asyncio.create_task(scrape(app))
    turns = 0
    while not task.done():
        turns += 1
        await asyncio.sleep(0.01)
    assert turns > 5
    # An application that serves the registry itself waits for nothing on its loop.
    began_at = time.monotonic()
    registry.get_sample_value("oban_up", {"oban_instance": "Oban"})
    assert time.monotonic() - began_at < 10
    slow.go_on.set()


def test_samples_that_take_long_are_taken_less_often(
    sync_oban: SyncOban, registry: CollectorRegistry
) -> None:
    metrics = ObanMetrics(sync_oban, registry=registry, refresh_interval=1)
    metrics.sampler.refresh()
    metrics.sampler.duration = 60.0
    with recorded(sync_oban.engine) as statements:
        deadline = time.monotonic() + 1.2
        while time.monotonic() < deadline:
            metrics.sampler.refresh()
            time.sleep(0.05)
    assert statements == []


async def test_reading_leaves_no_connection_open(url: URL, registry: CollectorRegistry) -> None:
    oban = Oban(url)
    opened: list[object] = []

    def count(change: int) -> Any:
        return lambda *_: opened.append(object()) if change > 0 else opened.pop()

    event.listen(oban.engine.sync_engine, "connect", count(1))
    metrics = ObanMetrics(oban, registry=registry, refresh_interval=1)
    for _ in range(2):
        await metrics.sampler.refresh_async()
        await eventually(lambda: metrics.sampler.is_up)
        await eventually(lambda: (metrics.sampler.age or 0) > 0.95)
    assert oban.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await oban.stop()


async def test_a_node_on_a_database_in_memory_is_read_on_its_loop(registry: CollectorRegistry) -> None:
    oban = Oban("sqlite+aiosqlite:///:memory:")
    async with oban.engine.begin() as connection:
        await connection.run_sync(migration.upgrade)
    app = metrics_app(oban, registry=registry)
    await oban.enqueue(Noop.new())
    found = await scrape(app)
    assert (found.value("oban_up"), found.value("oban_jobs")) == (1, 1)
    await oban.stop()


_FORKING = """
import os, sys
from oban import SyncOban, Job
from oban.prometheus import metrics_app
from tests.support.scraping import scrape_wsgi

oban = SyncOban(sys.argv[1], node="web")
app = metrics_app(oban)
for number in (1, 2):
    if os.fork() == 0:
        # As gunicorn does with preload_app: each worker uses the client and answers scrapes.
        oban.enqueue_many([Job(worker="W") for _ in range(number)])
        assert scrape_wsgi(app.wsgi).value("oban_up") == 1
        os._exit(0)
    assert os.wait()[1] == 0
found = scrape_wsgi(app.wsgi)
print(found.value("oban_jobs_enqueued_total"), found.value("oban_jobs"), found.value("oban_up"))
"""


def test_forked_processes_share_their_metrics_through_files(
    sqlite_factory: SQLiteFactory, tmp_path_factory: pytest.TempPathFactory
) -> None:
    url = sqlite_factory.create()
    arguments = [sys.executable, "-c", _FORKING, url.set(drivername="sqlite").render_as_string()]
    shared = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path_factory.mktemp("metrics"))}
    done = subprocess.run(
        arguments, env={**os.environ, **shared}, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.split() == ["3.0", "3.0", "1.0"], done.stderr
    sqlite_factory.drop(url)
