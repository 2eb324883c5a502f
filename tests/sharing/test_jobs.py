"""Each implementation runs, reads and manages jobs of the other one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL

from oban import Job, JobState, JobUpdate, Oban
from tests.sharing import workers
from tests.sharing.peer import Peer
from tests.sharing.workers import FIELDS, OURS, Ours, Resize
from tests.support.internals import runner_of
from tests.support.jobs import reaches, row_of
from tests.support.waiting import eventually

#: Fields of a job that one side can set and the other one must receive.
GIVEN: dict[str, Any] = {
    "args": {"path": "ä/\U0001f4a5.png", "sizes": [1, 2.5, None, {"deep": True}]},
    "meta": {"by": "shop", "n": 1},
    "tags": ["a", "b c"],
    "priority": 7,
    "max_attempts": 3,
    "queue": "images",
}


def of(job: Job | dict[str, Any]) -> dict[str, Any]:
    """The fields that both implementations show."""
    return {name: job[name] if isinstance(job, dict) else getattr(job, name) for name in FIELDS}


async def their_state(peer: Peer, id_: int, state: str) -> dict[str, Any]:
    """Wait until the client of oban-py sees a job in a state, and return the job as it shows it."""

    async def arrived() -> dict[str, Any] | None:
        job: dict[str, Any] = await peer.do("get", id_)
        return job if job["state"] == state else None

    job: dict[str, Any] = await eventually(arrived)
    return job


async def test_a_job_that_oban_py_inserts_runs_here_at_once_with_all_of_its_fields(
    url: URL, peer: Peer
) -> None:
    workers.seen.clear()
    await peer.start(url)
    async with Oban(url, **OURS) as oban:
        theirs = await peer.do("enqueue", worker="shop.Resize", **GIVEN)
        job = await reaches(oban, theirs["id"], JobState.COMPLETED, timeout=3)
    (ran,) = workers.seen
    assert (
        of(ran)
        == {**of(theirs), "attempt": 1}
        == {**GIVEN, "worker": "shop.Resize", "attempt": 1, "errors": []}
    )
    assert of(job) == of(ran)
    assert job.scheduled_at == datetime.fromisoformat(theirs["scheduled_at"]).replace(tzinfo=UTC)


async def test_a_job_that_we_insert_runs_there_at_once_with_all_of_its_fields(
    url: URL, peer: Peer, client: Oban
) -> None:
    await peer.start(url, queues={"images": 5})
    ours = await client.enqueue(Resize.new(**GIVEN))
    job = await reaches(client, ours, JobState.COMPLETED, timeout=3)
    (ran,) = await peer.do("seen")
    assert ran["id"] == ours.id
    assert (
        of(ran)
        == {**of(ours), "attempt": 1}
        == {**GIVEN, "worker": "shop.Resize", "attempt": 1, "errors": []}
    )
    assert of(job) == of(ran)


async def test_a_scheduled_job_of_either_is_run_by_the_other_when_it_is_due(
    url: URL, peer: Peer, client: Oban
) -> None:
    workers.seen.clear()
    await peer.start(url, queues={"theirs": 5}, stager={"interval": 0.05})
    async with Oban(url, **OURS) as oban:
        ours = await client.enqueue(Resize.new(queue="theirs", schedule_in=0.6))
        theirs = await peer.do("enqueue", worker="shop.Resize", queue="images", scheduled_in=0.6)
        assert (ours.state, theirs["state"]) == ("scheduled", "scheduled")
        # Oban-py does not notify for a scheduled job, and the stager would not poll that soon.
        runner_of(oban).stager.wake()
        for id_ in (ours.id, theirs["id"]):
            job = await reaches(client, id_, JobState.COMPLETED)
            assert job.attempted_at is not None
            assert timedelta(0) <= job.attempted_at - job.scheduled_at < timedelta(seconds=3)


#: What a job does, and the resulting row.
ENDINGS: list[tuple[dict[str, Any], str]] = [
    ({}, "completed"),
    ({"do": "record"}, "completed"),
    ({"do": "cancel"}, "cancelled"),
    ({"do": "snooze", "seconds": 600}, "scheduled"),
    ({"do": "raise"}, "retryable"),
]


def check_ending(job: dict[str, Any], args: dict[str, Any], recorded: object) -> None:
    do = args.get("do")
    assert job["attempt"] == (0 if do == "snooze" else 1)
    assert job["meta"] == {
        "record": {"recorded": True, "return": recorded},
        "snooze": {"snoozed": 1},
    }.get(do or "", {})
    texts = [entry["error"] for entry in job["errors"]]
    assert [(entry["attempt"], sorted(entry)) for entry in job["errors"]] == [
        (1, ["at", "attempt", "error"]) for _ in texts
    ]
    assert ["no such image" in text for text in texts] == ([True] if do in ("cancel", "raise") else [])
    assert all(datetime.fromisoformat(entry["at"]) for entry in job["errors"])
    if do in ("snooze", "raise"):
        due = datetime.fromisoformat(job["scheduled_at"]) - datetime.fromisoformat(job["attempted_at"])
        assert timedelta(seconds=590) < due < timedelta(seconds=610)


@pytest.mark.parametrize(("args", "state"), ENDINGS, ids=lambda value: str(value))
async def test_the_row_of_a_run_there_is_read_here(
    url: URL, peer: Peer, client: Oban, args: dict[str, Any], state: str
) -> None:
    await peer.start(url, queues={"images": 5})
    ours = await client.enqueue(Resize.new(args))
    job = await reaches(client, ours, JobState(state))
    (listed,) = await client.list_jobs()
    assert listed.id == job.id
    assert job.attempted_by[0] == "theirs"
    # The value as an Erlang term: a map from one binary to 3.
    shown = {name: getattr(job, name) for name in (*FIELDS, "scheduled_at", "attempted_at")}
    shown |= {name: shown[name].isoformat() for name in ("scheduled_at", "attempted_at")}
    check_ending(shown, args, "g3QAAAABbQAAAAV3aWR0aGED")


@pytest.mark.parametrize(("args", "state"), ENDINGS, ids=lambda value: str(value))
async def test_the_row_of_a_run_here_is_read_there(
    url: URL, peer: Peer, args: dict[str, Any], state: str
) -> None:
    await peer.start(url)
    async with Oban(url, **OURS):
        theirs = await peer.do("enqueue", worker="shop.Resize", queue="images", args=args)
        job = await their_state(peer, theirs["id"], state)
    assert await peer.do("all") == [job]
    assert job["attempted_by"][0] == "ours"
    check_ending(job, args, {"width": 3})


async def test_a_job_that_failed_on_the_one_is_retried_by_the_other(
    url: URL, peer: Peer, client: Oban
) -> None:
    workers.seen.clear()
    await peer.start(url, queues={"theirs": 1}, stager={"interval": 0.05})
    async with Oban(
        url,
        **OURS,
    ) as oban:
        first = await client.enqueue(Resize.new({"do": "raise"}))
        second = await client.enqueue(Resize.new({"do": "raise"}, queue="theirs"))
        for job, queue in ((first, "theirs"), (second, "images")):
            await reaches(client, job, JobState.RETRYABLE)
            await client.update_job(job, {"queue": queue})
        assert await client.retry_job(second)
        # A retry of oban-py wakes only its own stager.
        await peer.call("retry_job", first.id)
        for job in (first, second):
            row = await reaches(oban, job, JobState.RETRYABLE)
            await eventually(lambda: attempts(client, job, 2))  # noqa: B023
            row = await row_of(oban, job)
            assert [entry["attempt"] for entry in row.errors] == [1, 2]
            assert all("ValueError: no such image" in entry["error"] for entry in row.errors)
    assert [(given["attempt"], len(given["errors"])) for given in await peer.do("seen")] == [(1, 0), (2, 1)]
    assert [(given.attempt, len(given.errors)) for given in workers.seen] == [(1, 0), (2, 1)]


async def attempts(client: Oban, job: Job, number: int) -> bool:
    row = await row_of(client, job)
    return row.attempt == number and row.state is JobState.RETRYABLE


@pytest.mark.parametrize("ran_on", ["theirs", "images"])
async def test_each_manages_jobs_that_the_other_has_run(
    url: URL, peer: Peer, client: Oban, ran_on: str
) -> None:
    await peer.start(url, queues={"theirs": 5})
    # A retry of oban-py wakes no node of ours, so the job is found by polling.
    async with Oban(url, **{**OURS, "poll_interval": 0.1}):
        done = [(await client.enqueue(Resize.new({"do": "record"}, queue=ran_on))).id for _ in range(2)]
        failed = (await client.enqueue(Resize.new({"do": "raise"}, queue=ran_on))).id
        for id_ in done:
            before = await reaches(client, id_, JobState.COMPLETED)
        await reaches(client, failed, JobState.RETRYABLE)
        changes: JobUpdate = {"queue": "images", "args": {}, "tags": ["again"], "priority": 2}
        if ran_on == "theirs":
            updated = await client.update_job(done[0], changes)
            assert (updated.queue, updated.args, updated.tags) == ("images", {}, ["again"])
            assert await client.retry_job(done[0])
            assert await client.delete_job(done[1])
            assert await client.cancel_job(failed)
            meta = {}
        else:
            await peer.call("update_job", done[0], changes)
            assert await peer.call("retry_many_jobs", [done[0]]) == 1
            assert await peer.call("delete_many_jobs", [done[1]]) == 1
            assert await peer.call("cancel_many_jobs", [failed]) == 1
            # It keeps the recorded value, and adds its own key.
            meta = {**before.meta, "uniq_bmp": []}
            assert meta["return"] == {"width": 3}
        row = await reaches(client, done[0], JobState.COMPLETED)
        assert (row.attempt, row.queue, row.tags, row.priority) == (2, "images", ["again"], 2)
        assert row.meta == meta
        assert await client.get_job(done[1]) is None
        assert (await row_of(client, failed)).state is JobState.CANCELLED
        assert (await peer.do("get", failed))["state"] == "cancelled"


async def test_a_worker_that_one_side_does_not_know_fails_there_and_is_retried_here(
    url: URL, peer: Peer, client: Oban
) -> None:
    await peer.start(url, queues={"theirs": 1})
    async with Oban(url, **OURS):
        ours = await client.enqueue(Ours.new(queue="theirs"))
        theirs = await peer.do("enqueue", worker="shop.Theirs", queue="images")
        for id_, said, queue in (
            (ours.id, "WorkerResolutionError", "images"),
            (theirs["id"], "UnknownWorker", "theirs"),
        ):
            row = await reaches(client, id_, JobState.RETRYABLE)
            assert [said in entry["error"] for entry in row.errors] == [True]
            await client.update_job(id_, {"queue": queue})
            await client.retry_job(id_)
            assert (await reaches(client, id_, JobState.COMPLETED)).attempt == 2
