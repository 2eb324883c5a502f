"""A unique job of this library is an ordinary job for oban-py, which leaves its key as it is."""

from typing import Any

from sqlalchemy import URL, insert

from oban import Job, JobState, Oban
from tests.sharing.peer import Peer
from tests.support.jobs import reaches

RULE: dict[str, Any] = {"states": ["available", "scheduled", "executing", "retryable"], "period": None}


async def make(client: Oban, key: str, **values: Any) -> int:
    """Insert a row as a unique job has it, whose key nobody else has."""
    row = {"worker": "shop.Resize", "queue": "images", "unique_key": key, "unique_rule": RULE, **values}
    async with client.engine.begin() as connection:
        made = await connection.execute(insert(Job.__table__).values(**row).returning(Job.__table__.c.id))
        id_: int = made.scalar_one()
        return id_


async def reached(client: Oban, key: str, id_: int, state: JobState) -> Job:
    """The job once it has this state, with the key and the rule that it was inserted with."""
    job = await reaches(client, id_, state)
    assert (job.unique_key, job.unique_rule) == (key, RULE)
    return job


async def test_oban_py_runs_retries_and_cancels_unique_jobs(url: URL, peer: Peer, client: Oban) -> None:
    await peer.start(url, queues={"images": 5}, stager={"interval": 0.05})
    done = await make(client, "done")
    again = await make(client, "again", args={"do": "raise", "backoff": 600})
    soon = await make(client, "soon", args={"do": "snooze", "seconds": 600})
    stopped = await make(client, "stopped", args={"wait": True})
    assert (await reached(client, "done", done, JobState.COMPLETED)).attempt == 1
    await reached(client, "again", again, JobState.RETRYABLE)
    await reached(client, "soon", soon, JobState.SCHEDULED)
    await reached(client, "stopped", stopped, JobState.EXECUTING)
    await peer.call("cancel_job", stopped)
    await reached(client, "stopped", stopped, JobState.CANCELLED)
    # Oban-py judges no key: two jobs with the same one are two jobs.
    twin = await make(client, "done")
    assert await peer.call("retry_many_jobs", [done, again]) == 2
    assert (await reached(client, "done", twin, JobState.COMPLETED)).attempt == 1
    assert (await reached(client, "again", again, JobState.RETRYABLE)).errors
    assert (await reached(client, "done", done, JobState.COMPLETED)).id == done
    await peer.call("update_job", soon, {"priority": 3})
    assert (await reached(client, "soon", soon, JobState.SCHEDULED)).priority == 3
    assert await peer.call("delete_many_jobs", [twin]) == 1
    assert await client.get_job(twin) is None
    # It shows all jobs, and the columns that it does not know do not disturb it.
    assert {job["id"] for job in await peer.do("all")} == {done, again, soon, stopped}
