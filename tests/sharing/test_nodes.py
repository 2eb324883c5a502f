"""Nodes of both implementations share the tables, and neither takes, loses or breaks jobs of the other."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, delete, select, text

from oban import Job, JobState, Oban, migration
from oban.config import Options
from oban.models import Leader, Producer
from oban.runner.services import leader, lifeline
from tests.sharing import workers
from tests.sharing.peer import Peer
from tests.sharing.workers import OURS, Resize
from tests.support.databases import PostgreSQLFactory
from tests.support.internals import database_of, runner_of
from tests.support.jobs import reaches, row_of
from tests.support.options import FAST_POLLING
from tests.support.waiting import eventually

FAST: dict[str, Any] = {**OURS, **FAST_POLLING}


@pytest.fixture(autouse=True)
def fresh() -> None:
    workers.seen.clear()
    workers.finished.clear()


async def set_back(client: Oban, seconds: float, *columns: str) -> None:
    """Move the times in columns, each named `table.column`, back by this many seconds in all rows."""
    async with client.engine.begin() as connection:
        for name in columns:
            table, column = name.split(".")
            earlier = f"{column} - make_interval(secs => {seconds})"
            await connection.execute(text(f"UPDATE {table} SET {column} = {earlier}"))


async def older(client: Oban, seconds: float) -> bool:
    """Whether a job has been running for longer than this many seconds."""
    since = "SELECT extract(epoch FROM max(timezone('UTC', clock_timestamp()) - attempted_at)) FROM oban_jobs"
    async with client.engine.connect() as connection:
        return float((await connection.execute(text(since))).scalar_one()) > seconds


async def states(client: Oban) -> dict[str, int]:
    return dict(Counter(str(job.state) for job in await client.list_jobs()))


async def test_each_job_of_a_shared_queue_runs_once_whoever_inserted_it(
    url: URL, peer: Peer, client: Oban
) -> None:
    await peer.start(url, queues={"images": 5}, metrics={"interval": 0.05})
    async with Oban(url, **FAST):
        await client.enqueue_many(Resize.new({"nap": 0.01}) for _ in range(150))
        for _ in range(150):
            await peer.do("enqueue", worker="shop.Resize", queue="images", args={"nap": 0.01})

        async def done() -> bool:
            return await states(client) == {"completed": 300}

        await eventually(done)
        here = [job.id for job in workers.seen]
        there = [job["id"] for job in await peer.do("seen")]
    assert here
    assert there
    assert sorted(here + there) == list(range(1, 301))
    rows = await client.list_jobs()
    assert {job.attempt for job in rows} == {1}
    assert {job.id for job in rows if job.attempted_by[0] == "ours"} == set(here)


async def test_a_job_that_fails_on_one_side_is_retried_until_the_other_completes_it(
    url: URL, peer: Peer, client: Oban
) -> None:
    await peer.start(url, queues={"images": 5}, stager={"interval": 0.05})
    async with Oban(url, **FAST):
        await client.enqueue_many(
            Resize.new({"fails": side, "backoff": 0}, max_attempts=1000)
            for side in ("ours", "theirs")
            for _ in range(30)
        )

        async def done() -> bool:
            return await states(client) == {"completed": 60}

        await eventually(done, timeout=20)
        ran = Counter([job.id for job in workers.seen] + [job["id"] for job in await peer.do("seen")])
    for job in await client.list_jobs():
        assert job.attempted_by[0] != job.args["fails"]
        assert job.attempt == ran[job.id]
        # One side can get the job many times in a row. Of more than 20 errors, 10 at each end stay.
        failed, stored = list(range(1, job.attempt)), [entry["attempt"] for entry in job.errors]
        assert (stored[:10], stored[-10:]) == (failed[:10], failed[-10:])
    assert max(ran.values()) > 1


async def test_one_node_of_both_implementations_leads(url: URL, peer: Peer, client: Oban) -> None:
    async with Oban(url, lease=4.0, **FAST) as oban:
        await eventually(lambda: oban.is_leader)
        await peer.start(url, queues={"theirs": 1})
        assert not await peer.do("leads")
        await runner_of(oban).leader.resign()
        await eventually(lambda: oban.is_leader)
        # The signal is not meant for oban-py.
        assert not await peer.do("leads")
    await peer.do("stop")
    await peer.start(url, queues={"theirs": 1})
    assert await peer.do("leads")
    async with Oban(url, lease=4.0, **FAST) as oban:
        await runner_of(oban).leader.tick()
        assert not oban.is_leader
        async with client.engine.connect() as connection:
            assert (await connection.scalars(select(Leader.node))).all() == ["theirs"]
        # The node of oban-py gives up the lead, and ours takes it.
        assert await peer.do("stop") == []
        await eventually(lambda: oban.is_leader)


async def test_our_leader_does_not_rescue_a_running_job_of_oban_py_however_short_its_lease(
    url: URL, peer: Peer, client: Oban
) -> None:
    await peer.start(url, queues={"theirs": 1})
    job = await client.enqueue(Resize.new({"wait": True}, queue="theirs"))
    await reaches(client, job, JobState.EXECUTING)
    # Its node sends a heartbeat every 15 seconds; pretend that the last one was 14 seconds ago.
    await set_back(client, 14, "oban_producers.updated_at")
    async with client.engine.begin() as connection:
        await connection.execute(delete(Leader))
    # A heartbeat has a quarter of the lease, and the first one also connects, maybe on a busy machine.
    async with Oban(url, lease=4.0, rescue_interval=0.05, **FAST) as oban:
        runner = runner_of(oban)
        await eventually(lambda: oban.is_leader and runner.heartbeat_thread.is_steady())
        await eventually(lambda: older(client, 4.5))
        await runner.lifeline.tick()
        row = await row_of(client, job)
        assert (row.state, row.attempt) == (JobState.EXECUTING, 1)
        async with client.engine.connect() as connection:
            nodes = await connection.scalars(select(Producer.node))
            assert sorted(nodes) == ["ours", "theirs"]
    await peer.do("finish", job.id)
    assert (await reaches(client, job, JobState.COMPLETED)).attempt == 1


async def test_jobs_of_a_killed_node_of_oban_py_run_here(url: URL, python: Path, client: Oban) -> None:
    peer = Peer(python)
    try:
        await peer.start(url, queues={"images": 1})
        job = await client.enqueue(Resize.new({"wait": True}))
        await reaches(client, job, JobState.EXECUTING)
    finally:
        peer.kill()
    await client.update_job(job, {"args": {}})
    leads = leader.Leader(database_of(client), Options(name="Other"))
    await leads.tick()
    rescuer = lifeline.Lifeline(database_of(client), Options(), leads, lambda: True)
    await set_back(client, 50, "oban_producers.updated_at", "oban_jobs.attempted_at")
    await rescuer.tick()
    assert (await row_of(client, job)).state is JobState.EXECUTING
    await set_back(client, 11, "oban_producers.updated_at", "oban_jobs.attempted_at")
    await rescuer.tick()
    async with Oban(url, **OURS):
        row = await reaches(client, job, JobState.COMPLETED)
    assert (row.attempt, row.meta, row.attempted_by[0]) == (2, {"rescued": 1}, "ours")
    async with client.engine.connect() as connection:
        assert (await connection.scalars(select(Producer.node).where(Producer.node == "theirs"))).all() == []


@pytest.mark.parametrize("how", ["we lead", "leadership=False"])
async def test_the_lifeline_of_oban_py_does_not_rescue_our_jobs_unless_it_leads(
    url: URL, peer: Peer, client: Oban, how: str
) -> None:
    async with Oban(url, **FAST) as oban:
        await eventually(lambda: oban.is_leader)
        if how != "we lead":
            await runner_of(oban).leader.resign()
        impatient = {"lifeline": {"interval": 0.05, "rescue_after": 0.2}}
        await peer.start(
            url, queues={"theirs": 1}, **impatient, **({} if how == "we lead" else {"leadership": False})
        )
        job = await client.enqueue(Resize.new({"wait": True}))
        await reaches(client, job, JobState.EXECUTING)
        await eventually(lambda: older(client, 1.0))
        workers.finished.add(job.id)
        row = await reaches(client, job, JobState.COMPLETED)
    assert (row.attempt, row.meta, len(workers.seen)) == (1, {}, 1)


async def test_a_leader_of_oban_py_takes_a_long_job_from_a_healthy_node_of_ours(
    url: URL, peer: Peer, client: Oban
) -> None:
    await peer.start(url, queues={"theirs": 1}, lifeline={"interval": 0.05, "rescue_after": 1.0})
    async with Oban(url, **FAST):
        job = await client.enqueue(Resize.new({"wait": True}))
        await eventually(lambda: len(workers.seen) > 1)
        # The first run is told, and its result does not count.
        await eventually(workers.seen[0].cancelled)
        workers.finished.add(job.id)
        row = await reaches(client, job, JobState.COMPLETED)
    runs = len(workers.seen)
    assert (row.attempt, row.meta, row.errors) == (runs, {"rescued": runs - 1}, [])


async def test_a_producers_row_that_the_other_side_removed_comes_back(
    url: URL, peer: Peer, client: Oban
) -> None:
    await peer.start(url, queues={"theirs": 1}, refresher={"interval": 0.1})
    async with Oban(url, heartbeat_interval=0.1, **FAST):
        for _ in range(2):
            assert {info.node for info in await client.check_cluster()} == {"ours", "theirs"}
            async with client.engine.begin() as connection:
                await connection.execute(delete(Producer))

            async def back() -> bool:
                return {info.node for info in await client.check_cluster()} == {"ours", "theirs"}

            await eventually(back)


async def test_the_retention_of_the_leader_applies_to_all_jobs(url: URL, peer: Peer, client: Oban) -> None:
    async with Oban(url, **FAST):
        old = await client.enqueue(Resize.new())
        await reaches(client, old, JobState.COMPLETED)
        await set_back(client, 7200, "oban_jobs.completed_at")
        new = await client.enqueue(Resize.new())
        await reaches(client, new, JobState.COMPLETED)
    await peer.start(url, queues={"theirs": 1}, pruner={"max_age": 3600, "interval": 0.05})
    await eventually(lambda: gone(client, old))
    assert await client.get_job(new.id) is not None


async def gone(client: Oban, job: Job) -> bool:
    return await client.get_job(job.id) is None


async def test_both_implementations_share_a_schema_other_than_public(
    peer: Peer, url: URL, postgresql_factory: PostgreSQLFactory
) -> None:
    made = postgresql_factory.create(empty=True)
    try:
        migration.upgrade(made, prefix="shop")
        await peer.start(made, prefix="shop", queues={"theirs": 1})
        async with Oban(made, prefix="shop", **OURS) as oban:
            ours = await oban.enqueue(Resize.new({"wait": True}, queue="theirs"))
            theirs = await peer.do("enqueue", worker="shop.Resize", queue="images", args={"wait": True})
            for id_ in (ours.id, theirs["id"]):
                await reaches(oban, id_, JobState.EXECUTING)
            await peer.call("cancel_job", theirs["id"])
            await oban.cancel_job(ours)
            for id_ in (ours.id, theirs["id"]):
                await reaches(oban, id_, JobState.CANCELLED)
            await oban.pause_queue("theirs")
            await eventually(lambda: paused(peer))
            await peer.call("pause_queue", "images")
            await eventually(lambda: oban.check_queue("images").paused)  # type: ignore[union-attr]
        assert await peer.do("stop") == []
    finally:
        await peer.do("stop")
        postgresql_factory.drop(made)


async def paused(peer: Peer) -> bool:
    return bool(await peer.do("queues") == {"theirs": [1, True]})
