"""Finished jobs are deleted after their retention period, and not before."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, delete, insert, text, update

from oban import Job, JobState, Oban
from oban.config import Options, Retention
from oban.errors import ConfigError
from oban.models import Attempt
from oban.repository import orphaned_attempts
from oban.repository.prune import prune as delete_expired
from oban.repository.prune import rules
from oban.runner.services.leader import Leader
from oban.runner.services.pruner import Pruner
from tests.support.internals import database_of, retry_refused_now, walk_attempts_now
from tests.support.options import BRIEF
from tests.support.waiting import eventually
from tests.support.workers import Noop

pytestmark = pytest.mark.either_driver

HOUR = 3600.0
DAY = 24 * HOUR


class Other(Noop):
    """A worker with its own retention."""


class Named:
    """Makes jobs of a worker that does not exist."""

    def __init__(self, worker: str) -> None:
        self.worker = worker

    def new(self) -> Job:
        return Job(worker=self.worker)


async def finished(oban: Oban, state: str, age: float, worker: Any = Noop, **fields: Any) -> int:
    """Insert a job that reached its state this many seconds ago, and return its id."""
    job = await oban.enqueue(worker.new(**fields))
    ended = datetime.now(UTC) - timedelta(seconds=age)
    values: dict[str, Any] = {"state": JobState(state), f"{state}_at": ended}
    async with oban.engine.begin() as connection:
        await connection.execute(update(Job).where(Job.id == job.id).values(values))
    return job.id


async def prune(oban: Oban, leads: bool = True, **retention: Any) -> set[int]:
    """Run one tick of a pruner, and return the ids of the jobs that are left."""
    leader = Leader(database_of(oban), Options())
    if leads:
        await leader.tick()
    pruner = Pruner(database_of(oban), Options(retention=Retention(**retention)), leader)
    await pruner.tick()
    await leader.resign()
    return {job.id for job in await oban.list_jobs()}


@pytest.mark.parametrize("state", ["completed", "cancelled", "discarded"])
async def test_jobs_are_deleted_after_the_retention_of_their_state(oban: Oban, state: str) -> None:
    await finished(oban, state, HOUR + 60)
    young = await finished(oban, state, HOUR - 60)
    others = {
        await finished(oban, other, HOUR + 60)
        for other in ("completed", "cancelled", "discarded")
        if other != state
    }
    kept: dict[str, Any] = {"completed": None, "cancelled": None, "discarded": None}
    assert await prune(oban, **(kept | {state: HOUR})) == {young} | others


async def test_by_default_completed_jobs_stay_a_day_and_discarded_ones_a_week(oban: Oban) -> None:
    for state in ("completed", "cancelled"):
        await finished(oban, state, DAY + 60)
    await finished(oban, "discarded", 7 * DAY + 60)
    left = {
        await finished(oban, "completed", DAY - 60),
        await finished(oban, "cancelled", DAY - 60),
        await finished(oban, "discarded", 6 * DAY),
    }
    assert await prune(oban) == left


async def test_none_keeps_jobs_for_ever(oban: Oban) -> None:
    old = await finished(oban, "completed", 1000 * DAY)
    assert await prune(oban, completed=None) == {old}


async def test_the_age_of_a_job_counts_from_its_end_and_not_from_its_insertion(oban: Oban) -> None:
    job = await finished(oban, "completed", 60)
    long_ago = datetime.now(UTC) - timedelta(days=100)
    async with oban.engine.begin() as connection:
        made = {"inserted_at": long_ago, "scheduled_at": long_ago}
        await connection.execute(update(Job).where(Job.id == job).values(made))
    assert await prune(oban) == {job}


async def test_jobs_that_have_not_finished_are_never_pruned(oban: Oban) -> None:
    left = {
        (await oban.enqueue(Noop.new())).id,
        (await oban.enqueue(Noop.new(schedule_in=60))).id,
        await finished(oban, "cancelled", 5),
    }
    retried = await finished(oban, "discarded", 9 * DAY)
    await oban.retry_job(retried)
    # The time of an earlier end, before the job was retried.
    async with oban.engine.begin() as connection:
        await connection.execute(
            update(Job).where(Job.id == retried).values(completed_at=datetime(2001, 1, 1, tzinfo=UTC))
        )
    assert await prune(oban) == left | {retried}


async def test_queues_and_workers_can_have_their_own_retention_and_that_of_the_worker_wins(
    oban: Oban,
) -> None:
    plain = await finished(oban, "completed", 2 * HOUR)
    media = await finished(oban, "completed", 2 * HOUR, queue="media")
    other = await finished(oban, "completed", 2 * HOUR, worker=Other)
    both = await finished(oban, "completed", 2 * HOUR, worker=Other, queue="media")
    media_discarded = await finished(oban, "discarded", 30 * DAY, queue="media")
    rules: dict[str, Any] = {
        "completed": HOUR,
        "queues": {"media": {"completed": None, "discarded": None}},
        "workers": {Other: Retention(completed=timedelta(hours=3))},
    }
    assert await prune(oban, **rules) == {media, other, both, media_discarded}
    assert plain not in await prune(oban, **rules)
    shorter: dict[str, Any] = {"completed": None, "workers": {Other.worker_name: {"completed": HOUR}}}
    assert await prune(oban, **shorter) == {media}
    assert await prune(oban, queues={"media": {"completed": HOUR}}) == set()


@pytest.mark.parametrize("key", ["its class", "its name", "an alias"])
async def test_the_retention_of_a_worker_is_also_that_of_its_aliases(
    oban: Oban, own_registry: None, key: str
) -> None:
    class Renamed(Noop, aliases=["old.Name", "older.Name"]):
        pass

    ids = [
        await finished(oban, "completed", 2 * HOUR, Renamed),
        await finished(oban, "completed", 2 * HOUR, Noop),
        *[await finished(oban, "completed", 2 * HOUR, Named(name)) for name in ("old.Name", "older.Name")],
    ]
    chosen: Any = {"its class": Renamed, "its name": Renamed.worker_name, "an alias": "old.Name"}[key]
    assert await prune(oban, workers={chosen: {"completed": HOUR}}) == {ids[1]}
    # An alias can have a retention of its own.
    left = await finished(oban, "completed", 2 * HOUR, Named("older.Name"))
    own: Any = {Renamed: {"completed": HOUR}, "older.Name": {"completed": None}}
    assert await prune(oban, workers=own) == {ids[1], left}


async def test_one_run_deletes_no_more_than_the_limit_the_oldest_first_and_comes_back_soon(
    oban: Oban,
) -> None:
    jobs = [await finished(oban, "completed", 2 * DAY - number) for number in range(5)]
    leader = Leader(database_of(oban), Options())
    await leader.tick()
    pruner = Pruner(database_of(oban), Options(retention=Retention(limit=2)), leader)
    assert (await pruner.tick() or 30) <= 1
    assert {job.id for job in await oban.list_jobs()} == set(jobs[2:])
    await pruner.tick()
    assert await pruner.tick() is None
    assert await oban.list_jobs() == []


async def test_attempts_whose_jobs_something_else_has_deleted_are_deleted_by_a_walk(
    oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphaned_attempts, "ROWS", 2)
    monkeypatch.setattr(orphaned_attempts, "BLOCKS", 1)
    leader = Leader(database_of(oban), Options())
    await leader.tick()
    pruner = Pruner(database_of(oban), Options(), leader)
    assert await pruner.tick() is None
    jobs = [await finished(oban, "completed", 60) for _ in range(6)]
    attempt = {"attempt": 1, "outcome": "completed", "ended_at": datetime.now(UTC)}
    # More than two blocks.
    rows = [{"job_id": job, **attempt, "error": "e" * 1000} for job in jobs * 5]
    async with oban.engine.begin() as connection:
        await connection.execute(insert(Attempt), rows)
        await connection.execute(delete(Job).where(Job.id.in_(jobs[1:5])))
    # The next walk is due in an hour.
    assert await pruner.tick() is None
    assert len(await oban.list_attempts(jobs[1])) == 5
    walk_attempts_now(pruner)
    assert await pruner.tick() == 1.0
    while await pruner.tick() is not None:
        pass
    assert [len(await oban.list_attempts(job)) for job in jobs] == [5, 0, 0, 0, 0, 5]


async def test_a_node_that_does_not_lead_prunes_nothing(oban: Oban) -> None:
    job = await finished(oban, "completed", 100 * DAY)
    assert await prune(oban, leads=False) == {job}


async def test_two_pruners_at_once_do_no_harm(oban: Oban) -> None:
    for number in range(40):
        await finished(oban, "completed", 2 * DAY + number)
    [rule, *_] = rules(Retention(cancelled=None, discarded=None))
    deleted = await asyncio.gather(
        *(database_of(oban).write(delete_expired, rule, 30) for _ in range(4)),
    )
    while await database_of(oban).write(delete_expired, rule, 30):
        pass
    assert sum(deleted) <= 40
    assert await oban.list_jobs() == []


async def test_a_running_node_prunes(url: URL) -> None:
    async with Oban(url, name="client") as client:
        await finished(client, "completed", 2 * DAY)
        young = await finished(client, "completed", 60)
        async with Oban(url, queues={"other": 1}, prune_interval=0.05, **BRIEF):

            async def pruned() -> bool:
                return {job.id for job in await client.list_jobs()} == {young}

            await eventually(pruned)


@pytest.mark.parametrize(
    ("retention", "problem"),
    [
        ({"completed": -1}, "completed must be at least 0 and"),
        ({"finished": 1}, "unknown option 'finished'"),
        ({"queues": [1]}, "queues must be a dict"),
        (
            {"queues": {"a": {"queues": {}}, "b": {"workers": {"c": {}}}}},
            "'b' cannot have exceptions",
        ),
        ({"workers": {3: {}}}, "keys of workers must be strings, not 3"),
        ({"limit": 0}, "limit must be an integer"),
        (60, "must be a dict"),
    ],
)
def test_an_invalid_retention_is_refused(retention: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Oban("sqlite+aiosqlite://", retention=retention)


async def refer_to(oban: Oban, *ids: int) -> None:
    """Create a table of the application whose foreign keys prevent these jobs from being deleted."""
    async with oban.engine.begin() as connection:
        if oban.engine.dialect.name == "sqlite":
            condition = ", ".join(map(str, ids))
            await connection.execute(
                text(
                    f"CREATE TRIGGER keep BEFORE DELETE ON oban_jobs WHEN old.id IN ({condition})"
                    " BEGIN SELECT RAISE(ABORT, 'referred to'); END"
                )
            )
            return
        await connection.execute(text("CREATE TABLE report (job_id bigint REFERENCES oban_jobs (id))"))
        for id_ in ids:
            await connection.execute(text("INSERT INTO report VALUES (:id)"), {"id": id_})


async def test_jobs_that_cannot_be_deleted_do_not_block_others_and_are_retried_rarely(
    fresh_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    async with Oban(fresh_url) as oban:
        jobs = [await finished(oban, "completed", 2 * DAY - number) for number in range(7)]
        kept = {jobs[0], jobs[3]}
        await refer_to(oban, *kept)
        leader = Leader(database_of(oban), Options())
        await leader.tick()
        pruner = Pruner(database_of(oban), Options(retention=Retention(limit=2)), leader)
        for _ in range(6):
            await pruner.tick()
        assert {job.id for job in await oban.list_jobs()} == kept
        assert caplog.text.count("cannot be deleted") == 2
        later = await finished(oban, "completed", DAY + 1)
        assert await pruner.tick() is None
        assert later not in {job.id for job in await oban.list_jobs()}
        assert caplog.text.count("cannot be deleted") == 2
        retry_refused_now(pruner)
        await pruner.tick()
        assert caplog.text.count("cannot be deleted") == 4


async def test_a_batch_that_takes_too_long_is_tried_again_with_fewer_jobs(
    oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        await finished(oban, "completed", 2 * DAY - number)
    leader = Leader(database_of(oban), Options())
    await leader.tick()
    write = database_of(oban).write

    async def slow(function: Any, rule: Any, limit: int, *more: Any) -> Any:
        if limit > 3:
            raise TimeoutError
        return await write(function, rule, limit, *more)

    pruner = Pruner(database_of(oban), Options(retention=Retention(limit=16)), leader)
    monkeypatch.setattr(database_of(oban), "write", slow)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await pruner.tick()
    await pruner.tick()
    assert len(await oban.list_jobs()) == 18
    monkeypatch.undo()
    before = pruner.size
    await pruner.tick()
    assert 3 <= before < pruner.size < 16
