"""Copies and pickles of jobs: everything but the run of the original, and outside of its session."""

import asyncio
import copy
import pickle
from collections.abc import Callable

import pytest
from sqlalchemy import URL, create_engine, inspect
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import DetachedInstanceError

from oban import Job, JobState, Oban, Record, Worker
from tests.support.jobs import reaches
from tests.support.waiting import eventually

Copy = Callable[[Job], Job]
PROTOCOLS = (0, 2, pickle.HIGHEST_PROTOCOL)


def pickled(protocol: int) -> Copy:
    return lambda job: pickle.loads(pickle.dumps(job, protocol))


COPIES: dict[str, Copy] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {protocol}": pickled(protocol) for protocol in PROTOCOLS},
    "pickle of a copy": lambda job: pickled(2)(copy.copy(job)),
    "copy of a pickle": lambda job: copy.copy(pickled(2)(job)),
}

each_copy = pytest.mark.parametrize("how", COPIES)


class Copies(Worker, name="copies"):
    """Copies its own job, before and after SQLAlchemy knows it."""

    async def process(self, job: Job) -> Record:
        made = [how(job) for how in COPIES.values()]
        job.priority = 3
        made += [how(job) for how in COPIES.values()]
        same = [
            (each.id, each.args, each.state, each.attempt) == (job.id, job.args, JobState.EXECUTING, 1)
            for each in made
        ]
        apart = [inspect(each).detached and each is not job for each in made]
        return Record([all(same), all(apart), [each.priority for each in made]])


class CopiesWithSession(Worker, name="copies_with_session"):
    async def process(self, job: Job, session: AsyncSession) -> Record:
        session.add(job)
        made = [how(job) for how in COPIES.values()]
        return Record([job in session, all(inspect(each).detached and each not in session for each in made)])


class CopiesInThread(Worker, name="copies_in_thread"):
    def process(self, job: Job) -> Record:
        made = [how(job) for how in COPIES.values()]
        return Record(all(inspect(each).detached for each in made))


class CopiesWhenCancelled(Worker, name="copies_when_cancelled"):
    found: asyncio.Future[list[bool]]

    async def process(self, job: Job) -> None:
        await eventually(job.cancelled)
        self.found.set_result([how(job).cancelled() for how in COPIES.values()])


async def test_a_running_job_can_be_copied(sqlite_url: URL) -> None:
    workers = (Copies, CopiesWithSession, CopiesInThread)
    async with Oban(sqlite_url, queues={"default": 3}) as oban:
        jobs = await oban.enqueue_many([worker.new({"n": [1]}) for worker in workers])
        done = [await reaches(oban, job, JobState.COMPLETED) for job in jobs]
    count = len(COPIES)
    assert [job.recorded for job in done] == [[True, True, [0] * count + [3] * count], [True, True], True]


async def test_a_copy_of_a_running_job_knows_nothing_of_the_run(sqlite_url: URL) -> None:
    CopiesWhenCancelled.found = asyncio.get_running_loop().create_future()
    async with Oban(sqlite_url, queues={"default": 1}, watch_interval=0.1) as oban:
        job = await CopiesWhenCancelled.enqueue()
        await reaches(oban, job, JobState.EXECUTING)
        assert await oban.cancel_job(job)
        assert await CopiesWhenCancelled.found == [False] * len(COPIES)
        cancelled = await reaches(oban, job, JobState.CANCELLED)
        assert [how(cancelled).cancelled() for how in COPIES.values()] == [True] * len(COPIES)


@each_copy
async def test_a_copy_of_a_new_job_is_another_new_job(sqlite_url: URL, how: str) -> None:
    async with Oban(sqlite_url) as oban:
        original = Job(worker="any", args={"n": [1]}, schedule_in=60)
        copied = COPIES[how](original)
        both = await oban.enqueue_many([original, copied])
        assert len({job.id for job in both}) == 2
        assert {(row.state, row.args["n"][0]) for row in await oban.list_jobs()} == {(JobState.SCHEDULED, 1)}
        stored = COPIES[how](copied)
        assert (stored.id, inspect(stored).key) == (copied.id, inspect(copied).key)


@each_copy
def test_a_copy_leaves_the_session_and_can_join_another_one(sqlite_url: URL, how: str) -> None:
    engine = create_engine(sqlite_url.set(drivername="sqlite"))
    with Session(engine) as session, Session(engine) as other:
        session.add(job := Job(worker="any"))
        session.flush()
        session.commit()
        expired = COPIES[how](job)
        with pytest.raises(DetachedInstanceError):
            _ = expired.queue
        job.priority = 5
        changed = COPIES[how](job)
        assert job in session
        assert changed not in session
        session.rollback()
        other.add(changed)
        other.commit()
        assert changed.priority == 5
        session.refresh(job)
        assert job.priority == 5
        session.add(pending := Job(worker="any"))
        assert inspect(COPIES[how](pending)).transient
    engine.dispose()


def test_only_a_deep_copy_has_documents_of_its_own() -> None:
    job = Job(worker="any", args={"n": [1]})
    shallow, deep = copy.copy(job), copy.deepcopy(job)
    job.args["n"].append(2)
    assert (shallow.args, deep.args) == ({"n": [1, 2]}, {"n": [1]})
    shallow.priority = 4
    assert job.priority == 0
