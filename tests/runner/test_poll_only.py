"""With `notifier="poll"` no connection listens, and everything happens within about a second."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import URL, make_url

from oban import JobState, Oban
from oban.errors import ConfigError
from oban.notifier import make
from oban.notifier.poll import PollNotifier
from tests.support.internals import database_of, runner_of
from tests.support.jobs import reaches
from tests.support.options import BRIEF, NO_POLLING
from tests.support.waiting import eventually, quiet
from tests.support.workers import Noop, Runs


@pytest.fixture
async def client(url: URL) -> AsyncIterator[Oban]:
    """A client whose commits do not notify the node."""
    async with Oban(url, name="client", notifier="poll") as other:
        yield other


async def test_jobs_start_and_are_cancelled_within_a_second_or_so(url: URL, client: Oban) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 3}, notifier="poll", **BRIEF):
        await quiet()
        job = await client.enqueue(runs.worker.new())
        await eventually(lambda: runs.jobs, timeout=1.5)
        await client.cancel_job(job)
        await eventually(runs.jobs[0].cancelled, timeout=1.5)
        runs.finish(1)
        assert await client.retry_job(job)
        await eventually(lambda: len(runs.jobs) == 2, timeout=1.5)
        runs.finish(2)
        await reaches(client, job, JobState.COMPLETED)


async def test_a_queue_command_of_another_node_is_applied_within_a_second_or_so(url: URL) -> None:
    instance: dict[str, Any] = {"name": "shared", "notifier": "poll", **BRIEF}
    async with (
        Oban(url, node="a", queues={"default": 3}, **instance) as oban,
        Oban(url, node="b", **instance) as client,
    ):

        def paused() -> bool:
            info = oban.check_queue("default")
            return info is not None and info.paused

        await client.pause_queue("default")
        await eventually(paused, timeout=2)
        job = await client.enqueue(Noop.new())
        await client.scale_queue("default", 7)
        await client.resume_queue("default")
        await eventually(lambda: not paused(), timeout=2)
        await reaches(client, job, JobState.COMPLETED, timeout=3)
        info = oban.check_queue("default")
        assert info is not None
        assert info.limit == 7


async def test_only_polling_finds_a_job_of_another_client(url: URL, client: Oban) -> None:
    runs = Runs()
    patient: dict[str, Any] = {**NO_POLLING, "poll_interval": 1.0}
    async with Oban(url, queues={"default": 3}, notifier="poll", **patient):
        await quiet()
        # All tasks of the node: none listens, and none watches the file.
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not {name for name in names if "listen" in name or "data-version" in name}
        await client.enqueue(runs.worker.new())
        await quiet()
        assert runs.jobs == []
        await runs.begun(1)
        runs.finish(1)


async def test_on_sqlite_a_node_notices_its_own_commits_at_once(sqlite_url: URL) -> None:
    async with Oban(sqlite_url, queues={"default": 3}, notifier="poll", **NO_POLLING) as oban:
        assert type(runner_of(oban).notifier) is PollNotifier
        await quiet()
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)
    assert database_of(oban).on_notices == []


@pytest.mark.parametrize(
    ("engine", "listen_url", "words"),
    [
        (
            "sqlite+aiosqlite://",
            "sqlite+aiosqlite:///a.db",
            "listen_url is for PostgreSQL; sqlite has no LISTEN",
        ),
        ("sqlite+aiosqlite://", "postgresql://u:secret@h/d", "listen_url is for PostgreSQL"),
        ("postgresql://h/d", "sqlite+aiosqlite:///a.db", "of sqlite, but the engine is of postgresql"),
        ("postgresql://h/d", "mysql://u:secret@h/d", "listen_url: mysql is not supported"),
        ("postgresql://h/d", "postgresql+psycopg2://u:secret@h/d", "listen_url: the driver psycopg2"),
        ("postgresql://h/d", "no url with secret", "listen_url: the database URL cannot be read"),
    ],
)
def test_an_unusable_listen_url_is_refused_at_once(engine: str, listen_url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Oban(make_url(engine), listen_url=listen_url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["jobs", None])
async def test_a_direct_listener_listens_to_the_schema_of_the_engine(
    postgresql_url: URL, prefix: str | None
) -> None:
    # Its own connections would use another schema by default.
    astray = {"options": "-csearch_path=pg_catalog"}
    direct = postgresql_url.set(drivername="postgresql+psycopg").update_query_dict(astray)
    heard: list[dict[str, Any]] = []
    async with Oban(
        postgresql_url, prefix=prefix, listen_url=direct.render_as_string(hide_password=False)
    ) as oban:
        listener = make(database_of(oban), "listen", direct)
        listener.subscribe("signal", heard.append)
        await listener.start()
        assert heard == [{}]
        await database_of(oban).write(lambda tx: tx.notify("signal", [{"action": "unheard of"}]))
        await eventually(lambda: heard[1:] == [{"action": "unheard of"}])
        await listener.stop()


async def test_a_node_starts_the_jobs_that_it_stages_at_once(postgresql_url: URL) -> None:
    runs = Runs()
    patient: dict[str, Any] = {**NO_POLLING, "stage_interval": 0.05}
    async with Oban(postgresql_url, queues={"default": 3}, notifier="poll", **patient) as oban:
        await quiet()
        await oban.enqueue(runs.worker.new(schedule_in=0.3))
        await runs.begun(1)
        runs.finish(1)
