"""Wake-ups arrive whatever the search_path is, and a node logs what keeps them from arriving."""

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from oban import JobState, Oban, backoff, migration
from oban.notifier.listen import ListenNotifier
from tests.support.databases import PostgreSQLFactory
from tests.support.internals import hears, replace_listen, runner_of
from tests.support.jobs import reaches
from tests.support.options import FAST_POLLING, NO_POLLING
from tests.support.schema import render, sync_engine
from tests.support.waiting import eventually, quiet
from tests.support.workers import Noop, Runs


@pytest.fixture
def fresh(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """A new PostgreSQL database with the schema."""
    made = postgresql_factory.create()
    yield made
    postgresql_factory.drop(made)


@pytest.fixture
def empty(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    made = postgresql_factory.create(empty=True)
    yield made
    postgresql_factory.drop(made)


def execute(url: URL, *statements: str) -> None:
    with sync_engine(url).begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("DATABASE this", f"DATABASE {url.database}"))


async def wake_ups_arrive(node: Oban, client: Oban) -> None:
    """Fail unless a new job, a due one and a cancellation reach a node at once, whoever sends them."""
    notifier = runner_of(node).notifier
    assert isinstance(notifier, ListenNotifier)
    await eventually(lambda: hears(notifier))
    for sender in (node, client):
        await quiet()
        await reaches(node, await sender.enqueue(Noop.new()), JobState.COMPLETED)
        scheduled = await sender.enqueue(Noop.new(schedule_in=3600))
        await quiet()
        await sender.update_job(scheduled.id, {"schedule_in": 0})
        await reaches(node, scheduled, JobState.COMPLETED)
        runs = Runs()
        job = await sender.enqueue(runs.worker.new())
        running = await runs.begun(1)
        await quiet()
        await sender.cancel_job(job)
        await eventually(running.cancelled)
        runs.finish_all()
        await runs.over(1)


@pytest.mark.parametrize(
    ("prefix", "path"),
    [(None, "tenant, public"), (None, "nowhere, jobs, public"), ("jobs", "''"), ("jobs", "tenant")],
)
async def test_wake_ups_arrive_whatever_the_search_path_is(
    empty: URL, prefix: str | None, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    migration.upgrade(empty, prefix=prefix or ("jobs" if "jobs" in path else None))
    execute(empty, "CREATE SCHEMA tenant", f"ALTER DATABASE this SET search_path = {path}")
    async with (
        Oban(empty, queues={"default": 2}, prefix=prefix, **NO_POLLING) as node,
        Oban(empty, name="client", prefix=prefix) as client,
    ):
        await wake_ups_arrive(node, client)
    assert [record.message for record in caplog.records if record.name == "oban.notifier"] == []


async def test_wake_ups_arrive_from_sessions_with_another_search_path(fresh: URL) -> None:
    elsewhere = create_async_engine(
        fresh, connect_args={"server_settings": {"search_path": "nowhere, public"}}
    )
    async with (
        Oban(fresh, queues={"default": 2}, **NO_POLLING) as node,
        Oban(elsewhere, name="client") as client,
    ):
        await wake_ups_arrive(node, client)
        async with elsewhere.begin() as connection:
            await connection.execute(text("SET search_path = ''"))
            inserted = text("INSERT INTO public.oban_jobs (worker) VALUES (:worker) RETURNING id")
            job_id = (await connection.execute(inserted, {"worker": Noop.worker_name})).scalar_one()
        await reaches(node, job_id, JobState.COMPLETED)
    await elsewhere.dispose()


async def test_wake_ups_arrive_in_a_schema_that_the_engine_translates_to(empty: URL) -> None:
    migration.upgrade(empty, prefix="jobs")
    engine = create_async_engine(empty, execution_options={"schema_translate_map": {None: "jobs"}})
    async with (
        Oban(engine, queues={"default": 2}, **NO_POLLING) as node,
        Oban(empty, name="client", prefix="jobs") as client,
    ):
        await wake_ups_arrive(node, client)
    await engine.dispose()


OLD_FUNCTION = "CREATE OR REPLACE FUNCTION oban_notify_insert() RETURNS trigger LANGUAGE plpgsql AS"
PROBLEMS = {
    "DROP TRIGGER oban_notify_insert ON oban_jobs": (
        "public.oban_jobs has no trigger oban_notify_insert, so jobs are only found by polling"
        " (poll_interval, stage_interval); run `oban install`, which creates it again"
    ),
    "ALTER TABLE oban_jobs DISABLE TRIGGER oban_notify_insert": (
        "the trigger oban_notify_insert of public.oban_jobs is disabled, so jobs are only found by polling"
        " (poll_interval, stage_interval); run"
        " ALTER TABLE public.oban_jobs ENABLE TRIGGER oban_notify_insert"
    ),
    "ALTER DATABASE this SET session_replication_role = replica": (
        "session_replication_role is replica, which disables the trigger oban_notify_insert of"
        " public.oban_jobs, so jobs are only found by polling (poll_interval, stage_interval); reset it, or"
        " run ALTER TABLE public.oban_jobs ENABLE ALWAYS TRIGGER oban_notify_insert"
    ),
    f"{OLD_FUNCTION} 'BEGIN RETURN NULL; END'": (
        "the function oban_notify_insert of public.oban_jobs is not that of this version of Oban, so some"
        " jobs may only be found by polling; run `oban install`"
    ),
}


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "oban.notifier"]


@pytest.mark.parametrize("statement", PROBLEMS)
async def test_a_trigger_that_announces_nothing_is_logged_at_the_start(
    fresh: URL, caplog: pytest.LogCaptureFixture, statement: str
) -> None:
    execute(fresh, statement)
    async with Oban(fresh, queues={"default": 2}, **FAST_POLLING) as node:
        await eventually(lambda: logged(caplog))
        # It is only slower.
        await reaches(node, await node.enqueue(Noop.new()), JobState.COMPLETED)
    assert logged(caplog) == [PROBLEMS[statement]]


async def test_tables_that_were_copied_without_the_trigger_are_logged(
    fresh: URL, caplog: pytest.LogCaptureFixture
) -> None:
    execute(
        fresh,
        "ALTER TABLE oban_jobs RENAME TO old_jobs",
        "CREATE TABLE oban_jobs (LIKE old_jobs INCLUDING ALL)",
    )
    async with Oban(fresh, queues={"default": 2}, **FAST_POLLING):
        await eventually(lambda: logged(caplog))
    assert "public.oban_jobs has no trigger" in caplog.text


async def test_a_problem_that_begins_later_is_logged_once(
    fresh: URL, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oban.notifier.health.CHECK_INTERVAL", 0.01)
    caplog.set_level("INFO", "oban.notifier")
    async with Oban(fresh, queues={"default": 2}, **FAST_POLLING):
        # The lock waits for transactions of the node, which is on this loop.
        await asyncio.to_thread(execute, fresh, "ALTER TABLE oban_jobs DISABLE TRIGGER oban_notify_insert")
        await eventually(lambda: "is disabled" in caplog.text)
        await quiet()
        # The lock waits for transactions of the node, which is on this loop.
        await asyncio.to_thread(
            execute, fresh, "ALTER TABLE oban_jobs ENABLE ALWAYS TRIGGER oban_notify_insert"
        )
        await eventually(lambda: "arrive again" in caplog.text)
        await quiet()
    assert [line.split(",")[0] for line in logged(caplog)] == [
        "the trigger oban_notify_insert of public.oban_jobs is disabled",
        "notifications arrive again",
    ]


async def test_a_listener_in_another_database_is_logged(
    fresh: URL, empty: URL, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oban.notifier.health.ECHO_TIMEOUT", 0.2)
    async with Oban(fresh, queues={"default": 2}, listen_url=render(empty), **FAST_POLLING) as node:
        await eventually(lambda: logged(caplog))
        await reaches(node, await node.enqueue(Noop.new()), JobState.COMPLETED)
    assert logged(caplog) == [
        "notifications do not arrive, so jobs are only found by polling (poll_interval, stage_interval):"
        " listen_url leads to another database than the engine, or to a standby server"
    ]


async def test_a_standby_that_cannot_listen_is_logged_once(
    fresh: URL, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[AsyncConnection] = []

    async def refuse(_: ListenNotifier, connection: AsyncConnection) -> None:
        tries.append(connection)
        raise ConnectionError("cannot execute LISTEN during recovery")

    replace_listen(monkeypatch, refuse)
    monkeypatch.setattr(backoff, "pause", lambda failures: 0.001)
    monkeypatch.setattr("oban.notifier.listen.START_TIMEOUT", 0.01)
    async with Oban(fresh, queues={"default": 2}, **FAST_POLLING):
        await eventually(lambda: len(tries) >= 5)
    (line,) = logged(caplog)
    assert "cannot listen, so jobs are only found by polling" in line
    assert "during recovery; set listen_url to a URL of the primary server" in line


async def test_announcements_that_are_turned_off_are_no_problem(
    fresh: URL, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oban.notifier.health.ECHO_TIMEOUT", 0.01)
    monkeypatch.setattr("oban.notifier.health.CHECK_INTERVAL", 0.01)
    execute(fresh, "ALTER DATABASE this SET oban.notify = off")
    async with Oban(fresh, queues={"default": 2}, **FAST_POLLING) as node:
        await reaches(node, await node.enqueue(Noop.new()), JobState.COMPLETED)
        await quiet()
    assert logged(caplog) == []


def definition(url: URL) -> str:
    """The statement that creates the trigger's function as it is now."""
    with sync_engine(url).begin() as connection:
        statement = "SELECT pg_get_functiondef('oban_notify_insert'::regproc)"
        return str(connection.exec_driver_sql(statement).scalar_one())


async def test_wake_ups_arrive_with_the_function_of_an_older_revision(
    empty: URL, caplog: pytest.LogCaptureFixture
) -> None:
    migration.upgrade(empty, revision="0003")
    older = definition(empty)
    migration.upgrade(empty)
    newest = definition(empty)
    execute(empty, older)
    async with (
        Oban(empty, queues={"default": 2}, **NO_POLLING) as node,
        Oban(empty, name="client") as client,
    ):
        await wake_ups_arrive(node, client)
        assert "is not that of this version of Oban" in caplog.text
        await asyncio.to_thread(migration.upgrade, empty)
        assert definition(empty) == newest != older
        await reaches(node, await client.enqueue(Noop.new()), JobState.COMPLETED)
    assert len(logged(caplog)) == 1
