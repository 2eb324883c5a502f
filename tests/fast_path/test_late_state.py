"""The ORM state of a job is created on first access, so a job that no session uses does without it."""

import copy
import pickle
import threading
from typing import Any

import pytest
from sqlalchemy import event, inspect, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm.attributes import instance_state

from oban import Job, Oban, Worker


class Ring(Worker, name="tests.ring"):
    """Its jobs do not run."""

    async def process(self, job: Job) -> None: ...


def has_state(job: Job) -> bool:
    return "_sa_instance_state" in job.__dict__


async def test_enqueued_and_loaded_jobs_have_no_state_until_first_access(oban: Oban) -> None:
    jobs = await oban.enqueue_many([Ring.new({"n": number}) for number in range(3)])
    assert [job.args["n"] for job in jobs] == [0, 1, 2]
    assert all(job.id and job.state == "available" and job.errors == [] for job in jobs)
    assert not any(map(has_state, jobs))
    assert all(inspect(job).detached and inspect(job).identity == (job.id,) for job in jobs)


def test_a_new_job_is_transient() -> None:
    job = Ring.new()
    assert not has_state(job)
    assert inspect(job).transient
    assert instance_state(job) is instance_state(job) is inspect(job)
    assert inspect(job).obj() is job


async def test_a_new_job_is_added_to_a_session_and_one_that_was_enqueued_is_merged_and_attached(
    oban: Oban, engine: AsyncEngine
) -> None:
    enqueued = await oban.enqueue(Ring.new())
    async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
        session.add(enqueued)
        enqueued.priority = 3
        added = Ring.new({"by": "session"})
        session.add(added)
        await session.flush()
        assert inspect(added).persistent
        assert inspect(enqueued).persistent
    assert {job.id: job.priority for job in await oban.list_jobs()} == {enqueued.id: 3, added.id: 0}
    other = await oban.enqueue(Ring.new())
    async with AsyncSession(engine) as session:
        merged = await session.merge(other)
        assert (merged is not other, merged.id) == (True, other.id)
        assert (await session.scalars(select(Job).where(Job.id == other.id))).one() is merged


async def test_an_attribute_that_is_set_on_an_enqueued_job_is_a_change(oban: Oban) -> None:
    job = await oban.enqueue(Ring.new())
    job.priority = 7
    assert inspect(job).modified
    assert [attribute.key for attribute in inspect(job).attrs if attribute.history.has_changes()] == [
        "priority"
    ]


async def test_an_enqueued_job_cannot_be_added_as_a_second_row(oban: Oban, engine: AsyncEngine) -> None:
    job = await oban.enqueue(Ring.new())
    async with AsyncSession(engine) as session, session.begin():
        first = await session.get(Job, job.id)
        assert first is not None
        with pytest.raises(InvalidRequestError, match="already present"):
            session.add(job)


@pytest.mark.parametrize("asked", [False, True])
async def test_copies_and_pickles_show_the_same_row(oban: Oban, asked: bool) -> None:
    job = await oban.enqueue(Ring.new({"n": 1}))
    if asked:
        inspect(job)
    unpickled = pickle.loads(pickle.dumps(job))
    assert (unpickled.id, unpickled.args) == (job.id, {"n": 1})
    assert inspect(unpickled).identity == (job.id,)
    if not asked:
        assert inspect(copy.copy(job)).obj() is not job


def test_listeners_for_the_constructor_are_called() -> None:
    made: list[Any] = []

    def on_init(job: Job, _: object, values: dict[str, Any]) -> None:
        made.append((job, values))

    event.listen(Job, "init", on_init)
    try:
        job = Job(worker="w")
    finally:
        event.remove(Job, "init", on_init)
    assert made == [(job, {"worker": "w"})]
    assert has_state(job)


def test_concurrent_threads_get_the_same_state() -> None:
    for _ in range(50):
        job, told = Ring.new(), list[object]()
        together = threading.Barrier(4)

        def ask(job: Job = job, told: list[object] = told, together: threading.Barrier = together) -> None:
            together.wait()
            told.append(instance_state(job))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(told) == 4
        assert len(set(map(id, told))) == 1
