"""Metrics for Prometheus: what a scrape shows of a process and of the database."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import URL

from oban import Job, JobState, Oban, Snooze, SyncOban, Worker, telemetry
from oban.errors import ConfigError
from oban.prometheus import ObanMetrics, catalog, metrics_app
from oban.telemetry import JobEnded
from tests.support.databases import SQLiteFactory
from tests.support.jobs import reaches
from tests.support.options import FAST_POLLING
from tests.support.rows import insert_rows, row
from tests.support.scraping import OPENMETRICS, scrape, scrape_wsgi
from tests.support.waiting import eventually
from tests.support.workers import Noop


class Fails(Worker, max_attempts=2, redact=("card",)):
    def backoff(self, job: Job) -> float:
        return 3600.0

    async def process(self, job: Job) -> None:
        raise ValueError(f"refused {job.args['card']}")


class Later(Worker):
    async def process(self, job: Job) -> Snooze:
        return Snooze(3600)


class Waits(Worker):
    released = asyncio.Event()

    async def process(self, job: Job) -> None:
        await self.released.wait()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def sync_url(sqlite_factory: SQLiteFactory) -> Iterator[URL]:
    made = sqlite_factory.create()
    yield made.set(drivername="sqlite")
    sqlite_factory.drop(made)


@pytest.fixture
def waits() -> type[Waits]:
    Waits.released = asyncio.Event()
    return Waits


@pytest.mark.parametrize("accept", ["", OPENMETRICS], ids=["text", "openmetrics"])
async def test_a_scrape_shows_what_the_node_did_and_what_the_table_has(
    url: URL, registry: CollectorRegistry, accept: str
) -> None:
    async with Oban(url, node="here", queues={"default": 3, "mail": 2}, **FAST_POLLING) as oban:
        app = metrics_app(oban, registry=registry)
        jobs = await oban.enqueue_many([Noop.new() for _ in range(3)])
        failed = await oban.enqueue(Fails.new({"card": "canary-4242"}, queue="mail"))
        snoozed = await oban.enqueue(Later.new())
        waiting = await oban.enqueue(Noop.new(queue="nobody"))
        for job in jobs:
            await reaches(oban, job, JobState.COMPLETED)
        await reaches(oban, failed, JobState.RETRYABLE)
        await reaches(oban, snoozed, JobState.SCHEDULED)
        await oban.cancel_job(waiting)
        found = await scrape(app, accept)
    noop, fails = {"worker": jobs[0].worker}, {"worker": failed.worker, "queue": "mail"}
    assert found.value("oban_jobs_enqueued_total", queue="default", **noop) == 3
    assert found.value("oban_attempts_total", outcome="completed", state="completed", **noop) == 3
    assert found.value("oban_attempts_total", outcome="failed", state="retryable", **fails) == 1
    assert found.value("oban_attempts_total", outcome="failed", state="discarded", **fails) == 0
    assert found.value("oban_attempts_total", outcome="snoozed") == 1
    assert found.value("oban_attempt_duration_seconds_count") == 5
    assert found.value("oban_queue_time_seconds_count", queue="mail") == 1
    assert found.value("oban_jobs_changed_total", change="cancelled") == 1
    assert found.value("oban_executing_jobs") == 0
    assert found.value("oban_queue_limit", queue="default") == 3
    assert found.value("oban_node_running", oban_node="here") == 1
    assert found.value("oban_up") == 1
    assert found.value("oban_jobs", queue="default", state="completed") == 3
    assert found.value("oban_jobs", queue="mail", state="retryable") == 1
    assert found.value("oban_jobs", queue="nobody", state="cancelled") == 1
    assert found.value("oban_queue_capacity", queue="mail") == 2
    assert found.value("oban_nodes", status="alive") == 1
    assert found.labels("oban_instance") == {"Oban"}
    # Nothing of a job but its queue and its worker becomes a label.
    assert found.labels("queue") == {"default", "mail", "nobody"}
    assert "canary" not in found.text
    assert set().union(*(sample.labels for sample in found.samples)) <= {
        *(label for labels in catalog.SERIES.values() for label in labels)
    }


async def test_the_exposed_metrics_are_those_of_the_catalog(url: URL, registry: CollectorRegistry) -> None:
    oban = Oban(url)
    found = await scrape(metrics_app(oban, registry=registry))
    await oban.stop()
    exposed = {family.name: (family.type, family.documentation) for family in found.families}
    definitions = (*catalog.PROCESS, *catalog.SAMPLED)
    # The format of text has a family of its own for the times at which series were created.
    assert {name: found for name, found in exposed.items() if not name.endswith("_created")} == {
        one.name: (one.kind, one.help) for one in definitions
    }
    for definition in definitions:
        assert definition.name.startswith("oban_")
        assert definition.kind != "histogram" or definition.name.endswith("_seconds")
        assert not definition.name.endswith(("_total", "_milliseconds", "_minutes"))


async def test_a_running_job_is_counted_until_it_ends(
    url: URL, registry: CollectorRegistry, waits: type[Waits]
) -> None:
    async with Oban(url, queues={"default": 2}, **FAST_POLLING) as oban:
        app = metrics_app(oban, registry=registry)
        job = await oban.enqueue(waits.new())
        await reaches(oban, job, JobState.EXECUTING)
        found = await scrape(app)
        assert found.value("oban_executing_jobs", queue="default") == 1
        await oban.pause_queue("default")
        await eventually(lambda: oban.check_queue("default").paused)  # type: ignore[union-attr]
        waits.released.set()
        await reaches(oban, job, JobState.COMPLETED)
        found = await scrape(app)
        assert found.value("oban_executing_jobs", queue="default") == 0
        assert found.value("oban_queue_paused", queue="default") == 1
        assert found.value("oban_queue_commands_total", action="pause") == 1
    found = await scrape(app)
    assert found.value("oban_node_running") == found.value("oban_queue_limit") == 0


@pytest.mark.either_database
async def test_metrics_of_a_node_that_runs_already_show_its_queues(
    url: URL, registry: CollectorRegistry, waits: type[Waits]
) -> None:
    async with Oban(url, queues={"default": 2}, **FAST_POLLING) as oban:
        job = await oban.enqueue(waits.new())
        await reaches(oban, job, JobState.EXECUTING)
        app = metrics_app(oban, registry=registry)
        waits.released.set()
        await reaches(oban, job, JobState.COMPLETED)
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)
        found = await scrape(app)
    assert found.value("oban_node_running") == 1
    assert found.value("oban_queue_limit", queue="default") == 2
    # The start of the first job was not seen.
    assert found.value("oban_executing_jobs") == 0
    assert found.value("oban_attempts_total", worker=job.worker) in (None, 1)


@pytest.mark.either_database
async def test_two_instances_share_a_registry(
    url: URL, registry: CollectorRegistry, sqlite_factory: SQLiteFactory
) -> None:
    other_url = sqlite_factory.create()
    shop, mail = Oban(url, name="shop"), Oban(other_url, name="mail")
    app = metrics_app(shop, mail, registry=registry)
    await shop.enqueue_many([Noop.new(), Noop.new()])
    await mail.enqueue(Noop.new())
    found = await scrape(app)
    for name, number in (("shop", 2), ("mail", 1)):
        assert found.value("oban_jobs_enqueued_total", oban_instance=name) == number
        assert found.value("oban_jobs", oban_instance=name) == number
    await shop.stop()
    await mail.stop()
    sqlite_factory.drop(other_url)


@pytest.mark.either_database
async def test_two_clients_of_one_instance_give_each_series_once(
    url: URL, registry: CollectorRegistry
) -> None:
    first, second = Oban(url), Oban(url)
    app = metrics_app(first, second, registry=registry)
    await first.enqueue(Noop.new())
    await second.enqueue(Noop.new())
    found = await scrape(app)
    assert found.value("oban_jobs_enqueued_total") == found.value("oban_jobs") == 2
    await first.stop()
    await second.stop()


@pytest.mark.either_database
async def test_the_application_has_metrics_of_its_own_next_to_them(
    url: URL, registry: CollectorRegistry
) -> None:
    Gauge("shop_carts", "Open carts.", registry=registry).set(7)
    oban = Oban(url)
    found = await scrape(metrics_app(oban, registry=registry))
    assert (found.value("shop_carts"), found.value("oban_up")) == (7, 1)
    await oban.stop()


async def test_metrics_live_as_long_as_their_client(
    sqlite_factory: SQLiteFactory, registry: CollectorRegistry
) -> None:
    url = sqlite_factory.create()
    oban = Oban(url)
    ObanMetrics(oban, registry=registry)
    gc.collect()
    labels = {"oban_instance": "Oban"}
    await eventually(lambda: registry.get_sample_value("oban_up", labels) == 1)
    await oban.stop()
    client = weakref.ref(oban)
    del oban
    gc.collect()
    assert client() is None
    assert registry.get_sample_value("oban_up", labels) is None
    sqlite_factory.drop(url)


@pytest.mark.either_database
async def test_closed_metrics_record_nothing(url: URL, registry: CollectorRegistry) -> None:
    oban = Oban(url)
    metrics = ObanMetrics(oban, registry=registry)
    app = metrics_app(metrics)
    await oban.enqueue(Noop.new())
    metrics.close()
    await oban.enqueue(Noop.new())
    found = await scrape(app)
    assert found.value("oban_jobs_enqueued_total") == 1
    assert found.value("oban_jobs") is None
    assert not oban.telemetry.wants(JobEnded)
    # A client can have new ones then.
    assert (await scrape(metrics_app(oban, registry=registry))).value("oban_jobs") == 2
    await oban.stop()


def test_a_sync_client_is_scraped_as_wsgi(sync_url: URL, registry: CollectorRegistry) -> None:
    oban = SyncOban(sync_url)
    app = metrics_app(oban, registry=registry)
    oban.enqueue(Noop.new())
    for accept in ("", OPENMETRICS):
        found = scrape_wsgi(app.wsgi, accept)
        assert found.value("oban_jobs_enqueued_total") == 1
        assert found.value("oban_up") == found.value("oban_jobs", queue="default", state="available") == 1
        assert found.value("oban_oldest_available_age_seconds", queue="default") is not None
    oban.stop()


async def test_ten_thousand_queues_and_workers_become_other(url: URL, registry: CollectorRegistry) -> None:
    oban = Oban(url)
    app = metrics_app(oban, registry=registry, max_label_values=20)
    jobs = [Job(worker=f"app.Worker{n}", queue=f"tenant-{n}") for n in range(10_000)]
    await oban.enqueue_many(jobs)
    found = await scrape(app)
    assert "other" in found.labels("queue") & found.labels("worker")
    assert len(found.labels("queue")) == len(found.labels("worker")) == 21
    assert len([sample for sample in found.samples if sample.name == "oban_jobs_enqueued_total"]) <= 41
    assert found.value("oban_jobs_enqueued_total") == 10_000
    assert found.value("oban_jobs", state="available") == 10_000
    await oban.stop()


@pytest.mark.either_database
async def test_the_number_of_pairs_of_queues_and_workers_is_bounded(
    url: URL, registry: CollectorRegistry
) -> None:
    oban = Oban(url)
    app = metrics_app(oban, registry=registry, max_label_values=10)
    await oban.enqueue_many(
        [Job(worker=f"app.Worker{n}", queue=f"tenant-{m}") for n in range(10) for m in range(10)]
    )
    found = await scrape(app)
    assert len([one for one in found.samples if one.name == "oban_jobs_enqueued_total"]) == 10 + 10
    assert found.value("oban_jobs_enqueued_total") == 100
    await oban.stop()


HARMFUL = ['a"b\\c', "new\nline", "\x1b[31m", "\ud800", "x" * 300, "{}", "ü"]


@pytest.mark.parametrize("accept", ["", OPENMETRICS], ids=["text", "openmetrics"])
async def test_names_that_another_program_has_stored_break_no_scrape(
    sqlite_factory: SQLiteFactory, registry: CollectorRegistry, accept: str
) -> None:
    url = sqlite_factory.create()
    oban = Oban(url)
    # PostgreSQL cannot store a surrogate; nor can SQLite, through Python.
    await insert_rows(oban.engine, *(row(queue=name) for name in HARMFUL if name != "\ud800"))
    app = metrics_app(oban, registry=registry)
    for name in HARMFUL:
        oban.telemetry.emit(
            telemetry.JobUnreadable, job_id=1, queue=name, attempt=1, error="secret", error_type="E"
        )
    found = await scrape(app, accept)
    queues = found.labels("queue")
    assert {'a"b\\c', "new?line", "?[31m", "?", "x" * 127 + "…", "{}", "ü"} == queues
    assert "secret" not in found.text
    await oban.stop()
    sqlite_factory.drop(url)


def test_every_event_is_recorded_or_left_out_on_purpose(registry: CollectorRegistry, sync_url: URL) -> None:
    oban = SyncOban(sync_url)
    ObanMetrics(oban, registry=registry)
    unused = {event.__name__ for event in telemetry.EVENTS if not oban.telemetry.wants(event)}
    # `NodeStopped` and `ServiceFailed` are counted; the others are no matter for an alert.
    assert unused == {
        *("NodeStopping", "ServiceRecovered"),
        *("JobReleased", "PeriodicChanged", "ProgressStored"),
        *("DashboardAction", "DashboardRefused"),
    }
    oban.stop()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_label_values": 0}, "max_label_values must be a positive integer, not 0"),
        ({"refresh_interval": 0.5}, "refresh_interval must be at least 1 second, not 0.5"),
        ({"refresh_interval": "15"}, "refresh_interval must be at least 1 second, not '15'"),
        ({"count_limit": 0}, "count_limit must be a positive integer, not 0"),
        ({"count_limit": None}, "count_limit must be a positive integer, not None"),
    ],
)
def test_wrong_options_are_refused(
    sync_url: URL, registry: CollectorRegistry, options: dict[str, Any], problem: str
) -> None:
    oban = SyncOban(sync_url)
    with pytest.raises(ConfigError, match=f"^{problem}$"):
        metrics_app(oban, registry=registry, **options)
    oban.stop()


def test_wrong_sources_are_refused(sync_url: URL, registry: CollectorRegistry) -> None:
    oban = SyncOban(sync_url)
    metrics = ObanMetrics(oban, registry=registry)
    with pytest.raises(ConfigError, match="has metrics in the registry already; use its ObanMetrics"):
        ObanMetrics(oban, registry=registry)
    with pytest.raises(ConfigError, match="metrics_app serves one registry"):
        metrics_app(metrics, registry=CollectorRegistry())
    with pytest.raises(ConfigError, match="metrics_app needs an Oban, a SyncOban or an ObanMetrics"):
        metrics_app()
    with pytest.raises(ConfigError, match="metrics need an Oban or a SyncOban, not 5"):
        metrics_app(5)  # type: ignore[arg-type]
    with (
        oban.engine.connect() as connection,
        pytest.raises(ConfigError, match="metrics need a client of an engine or a URL"),
    ):
        ObanMetrics(SyncOban(connection), registry=registry)
    oban.stop()
