"""`insert_periodic_jobs` stands for the leader in a test: due entries insert their jobs, each time once."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import update

from oban import InvalidJob, Job, Oban, Periodic, SyncOban, Worker, testing
from oban.errors import ConfigError
from oban.models import PeriodicEntry
from tests.testing.applications import Application, with_clients

#: A Tuesday.
NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def at_new_year() -> Iterator[None]:
    with testing.travel(NEW_YEAR):
        yield


def declare(name: str, cron: str, **options: Any) -> type[Worker]:
    """A worker of the instance "Cron" with an entry."""

    class Periodical(Worker, name=name, cron=cron, oban="Cron", **options):
        def process(self, job: Job) -> None:
            """Nothing."""

    return Periodical


def told(jobs: list[Job]) -> list[tuple[str, str]]:
    return [(job.worker, job.meta["cron_tick"]) for job in jobs]


@with_clients(name="Cron")
async def test_an_entry_inserts_its_job_at_its_time(app: Application, own_registry: None) -> None:
    declare("nightly", "0 3 * * *", queue="reports", tags=["x"], max_attempts=3)
    insert_jobs = app.testing.insert_periodic_jobs
    assert await insert_jobs() == []
    with testing.travel(hours=3) as moving:
        (job,) = await insert_jobs()
        assert told([job]) == [("nightly", "2030-01-01T03:00:00Z")]
        assert (job.queue, job.tags, job.max_attempts, job.state) == ("reports", ["x"], 3, "available")
        assert job.inserted_at == moving.now()
        assert await insert_jobs() == []
        moving.advance(hours=23, minutes=59)
        assert await insert_jobs() == []
        moving.advance(minutes=1)
        assert told(await insert_jobs()) == [("nightly", "2030-01-02T03:00:00Z")]
        assert len(await app.oban.list_jobs()) == 2


@with_clients(name="Cron")
async def test_the_first_call_inserts_what_is_due_in_this_minute(
    app: Application, own_registry: None
) -> None:
    for minute in (29, 30, 31):
        declare(f"at-{minute}", f"{minute} 3 * * *")
    with testing.travel(hours=3, minutes=30, seconds=59):
        assert told(await app.testing.insert_periodic_jobs()) == [("at-30", "2030-01-01T03:30:00Z")]


@with_clients(name="Cron")
async def test_missed_times_are_made_up_for_as_on_a_node(app: Application, own_registry: None) -> None:
    for catch_up in ("skip", "latest", "all", 2):
        declare(f"c-{catch_up}", "*/10 * * * *", catch_up=catch_up)
    first = await app.testing.insert_periodic_jobs()
    assert [job.worker for job in first] == ["c-2", "c-all", "c-latest", "c-skip"]
    with testing.travel(minutes=35):
        ticks = told(await app.testing.insert_periodic_jobs())
    minutes = [(worker, tick[14:16]) for worker, tick in ticks]
    assert sorted(minutes) == [
        *(("c-2", minute) for minute in ("20", "30")),
        *(("c-all", minute) for minute in ("10", "20", "30")),
        ("c-latest", "30"),
    ]


@with_clients(name="Cron")
async def test_entries_that_were_added_begin_then_and_obey_operators(app: Application) -> None:
    await app.oban.add_periodic(Periodic("hourly", "@hourly", Job(worker="w")))
    assert await app.testing.insert_periodic_jobs() == []
    with testing.travel(hours=1) as moving:
        assert len(await app.testing.insert_periodic_jobs()) == 1
        await app.oban.pause_periodic("hourly")
        moving.advance(hours=1)
        assert await app.testing.insert_periodic_jobs() == []
        await app.oban.resume_periodic("hourly")
        await app.oban.update_periodic("hourly", expression="30 * * * *", args={"x": 1})
        moving.advance(minutes=30)
        (job,) = await app.testing.insert_periodic_jobs()
        assert (job.args, job.meta["cron_expr"]) == ({"x": 1}, "30 * * * *")
        await app.oban.delete_periodic("hourly")
        moving.advance(hours=1)
        assert await app.testing.insert_periodic_jobs() == []


@with_clients(name="Cron", max_attempts=7)
async def test_jobs_get_the_attempts_of_the_client(app: Application, own_registry: None) -> None:
    declare("w", "0 0 * * *")
    (job,) = await app.testing.insert_periodic_jobs()
    assert job.max_attempts == 7


@with_clients(name="Cron")
async def test_a_reboot_is_no_time(app: Application, own_registry: None) -> None:
    declare("boot", "@reboot")
    assert await app.testing.insert_periodic_jobs() == []
    assert (await app.oban.run_periodic("boot")).worker == "boot"


@with_clients(name="Cron")
async def test_a_unique_job_that_is_there_is_returned(app: Application, own_registry: None) -> None:
    worker = declare("unique", "* * * * *", unique=True)
    stored = await app.oban.enqueue(worker.new())
    assert [job.id for job in await app.testing.insert_periodic_jobs()] == [stored.id]


@with_clients(name="Cron")
async def test_jobs_are_in_the_transaction_of_the_session(app: Application, own_registry: None) -> None:
    declare("w", "0 0 * * *")
    async with app.session() as session:
        (job,) = await app.testing.insert_periodic_jobs(session=session.own)
        assert job in session.own
        await session.awaited.rollback()
    assert await app.oban.list_jobs() == []
    assert len(await app.testing.insert_periodic_jobs()) == 1


@with_clients(name="Cron")
async def test_an_entry_whose_job_is_wrong_raises_the_error(app: Application) -> None:
    await app.oban.add_periodic(Periodic("bad", "* * * * *", Job(worker="w")))
    declared = {"expression": "* * * * *", "worker": "w", "queue": 5}
    async with app.session() as session:
        await session.awaited.execute(update(PeriodicEntry).values(declared=declared))
        await session.awaited.commit()
    with testing.travel(minutes=1), pytest.raises(InvalidJob, match="queue") as raised:
        await app.testing.insert_periodic_jobs()
    assert raised.value.__notes__ == ["The periodic entry bad could not insert a job."]
    assert await app.oban.list_jobs() == []


@with_clients(name="Cron")
async def test_two_workers_cannot_have_the_same_entry(app: Application, own_registry: None) -> None:
    declare("a", "* * * * *", cron_name="same")
    declare("b", "* * * * *", cron_name="same")
    with pytest.raises(ConfigError, match="same"):
        await app.testing.insert_periodic_jobs()


async def test_the_entries_of_the_option_of_a_client_are_declared(oban: Oban) -> None:
    # With connections of its own, the client commits.
    client = Oban(oban.engine, periodic=[Periodic("nightly", "0 0 * * *", Job(worker="w"))], name="Own")
    (job,) = await testing.insert_periodic_jobs(oban="Own")
    assert [each.id for each in await oban.list_jobs()] == [job.id]
    assert [each.name for each in await client.list_periodic()] == ["nightly"]


def test_without_an_event_loop_a_name_means_the_sync_client(sqlite_factory: Any) -> None:
    url = sqlite_factory.create()
    client = SyncOban(url.set(drivername="sqlite"), name="Sync cron")
    client.add_periodic(Periodic("hourly", "@hourly", Job(worker="w")))
    with testing.travel(hours=1):
        jobs: Any = testing.insert_periodic_jobs(oban="Sync cron")
    assert [job.worker for job in jobs] == ["w"]
    client.stop()
    sqlite_factory.drop(url)
