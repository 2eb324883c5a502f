"""Tables of oban-py keep their jobs when they are adopted, and then work for both implementations."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from oban import JobState, Oban, migration
from tests.sharing.peer import NODE, Peer, dsn
from tests.sharing.workers import OURS, Resize
from tests.support.databases import PostgreSQLFactory
from tests.support.jobs import reaches
from tests.support.waiting import eventually


@pytest.fixture
def made(python: Path, postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """A database with the tables of oban-py."""
    url = postgresql_factory.create(empty=True)
    subprocess.run([python, "-E", NODE.with_name("install.py"), dsn(url)], check=True)
    yield url
    postgresql_factory.drop(url)


@pytest.mark.slow
async def test_adopted_tables_keep_their_jobs_and_serve_both(made: URL, peer: Peer) -> None:
    await peer.start(made, queues={"theirs": 1})
    before = [
        await peer.do("enqueue", worker="shop.Resize", queue=queue, tags=["kept"], args={"wait": True})
        for queue in ("theirs", "images")
    ]
    # A node of oban-py works meanwhile.
    migration.upgrade(made)
    async with Oban(made, **OURS) as oban:
        for job in before:
            assert (await reaches(oban, job["id"], JobState.EXECUTING)).tags == ["kept"]
        await peer.call("cancel_job", before[1]["id"])
        await oban.cancel_job(before[0]["id"])
        for job in before:
            await reaches(oban, job["id"], JobState.CANCELLED)
        after = await oban.enqueue(Resize.new(queue="theirs"))
        await reaches(oban, after, JobState.COMPLETED)
        await peer.call("pause_all_queues")
        await eventually(lambda: oban.check_queue("images").paused)  # type: ignore[union-attr]
    # Stop the node before its database is dropped.
    assert await peer.do("stop") == []
