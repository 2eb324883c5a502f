"""The worker that a row names runs on the event loop or in a thread."""

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, text

from oban import Job, JobState, Oban, Record, Worker, current_job, job, worker
from oban.registry import registry
from tests.support.jobs import reaches
from tests.support.waiting import eventually

pytestmark = pytest.mark.execution


class SeesItsJob(Worker):
    async def process(self, job: Job) -> Record:
        await asyncio.sleep(0)
        here, in_thread = current_job(), await asyncio.to_thread(current_job)
        in_task = await asyncio.create_task(self.look())
        return Record([here is job, in_thread is job, in_task is job])

    async def look(self) -> Job | None:
        return current_job()


class SeesItsJobInThread(Worker):
    def process(self, job: Job) -> Record:
        return Record([current_job() is job, threading.current_thread() is not threading.main_thread()])


@worker(queue="media", max_attempts=2, tags=["Plain"])
class PlainAsync:
    async def process(self, job: Job) -> Record:
        return Record(job.args["n"] * 2)


@worker(name="plain.sync")
class PlainSync:
    def process(self, job: Job) -> Record:
        return Record(job.args["n"] * 3)


@job(queue="media", priority=3)
async def add(a: int, b: int = 1, *, scale: int = 1) -> Record:
    return Record((a + b) * scale)


@job(name="functions.greet")
def greet(whom: str) -> Record:
    running = current_job()
    assert running is not None
    return Record(f"hello {whom} from {running.worker}")


def made(cls: type[Any]) -> type[Worker]:
    """The class that @worker made, typed as the worker that it is now."""
    assert issubclass(cls, Worker)
    return cls


def decorated(function: Any) -> Any:
    """A decorator that hides that the function is async."""

    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


class Wrapped(Worker):
    @decorated
    async def process(self, job: Job) -> Record:
        await asyncio.sleep(0)
        return Record("awaited")


async def recorded(oban: Oban, enqueued: Job) -> Any:
    row = await reaches(oban, enqueued, JobState.COMPLETED)
    return row.meta["return"]


async def test_a_plain_process_runs_in_a_thread_and_does_not_block_the_loop(url: URL) -> None:
    begun, answered = threading.Event(), threading.Event()

    class WaitsForTheLoop(Worker):
        def process(self, job: Job) -> Record:
            begun.set()
            return Record(answered.wait(10))

    async with Oban(url, queues={"default": 5}) as oban:
        enqueued = await oban.enqueue(WaitsForTheLoop.new())
        await eventually(begun.is_set)
        answered.set()
        assert await recorded(oban, enqueued) is True


async def test_as_many_plain_processes_run_at_once_as_the_limits_allow(url: URL) -> None:
    together = threading.Barrier(12)

    class Meets(Worker):
        def process(self, job: Job) -> Record:
            together.wait(10)
            return Record("met")

    async with Oban(url, queues={"default": 10, "media": 2}) as oban:
        jobs = await oban.enqueue_many([Meets.new(queue=q) for q in ["default"] * 10 + ["media"] * 2])
        for enqueued in jobs:
            assert await recorded(oban, enqueued) == "met"


@pytest.mark.parametrize("seeing", [SeesItsJob, SeesItsJobInThread])
async def test_every_run_sees_its_own_job_as_the_current_one(url: URL, seeing: type[Worker]) -> None:
    async with Oban(url, queues={"default": 5}) as oban:
        jobs = await oban.enqueue_many([seeing.new() for _ in range(10)])
        for enqueued in jobs:
            assert all(await recorded(oban, enqueued))
    assert current_job() is None


async def test_classes_and_functions_run_as_workers(url: URL) -> None:
    async with Oban(url, queues={"default": 5, "media": 5}) as oban:
        plain = await oban.enqueue(made(PlainAsync).new({"n": 2}))
        assert (plain.queue, plain.max_attempts, plain.tags) == ("media", 2, ["plain"])
        assert await recorded(oban, plain) == 4
        assert await recorded(oban, await oban.enqueue(made(PlainSync).new({"n": 2}))) == 6
        assert await recorded(oban, await oban.enqueue(Wrapped.new())) == "awaited"

        sum_of = await add.enqueue(2, b=3, scale=10)
        assert (sum_of.queue, sum_of.priority) == ("media", 3)
        assert await recorded(oban, sum_of) == 50
        assert await recorded(oban, await add.enqueue(2)) == 3
        assert await recorded(oban, await oban.enqueue(greet.new("you"))) == "hello you from functions.greet"


async def test_a_function_can_be_enqueued_with_other_options(url: URL) -> None:
    other = add.with_options(queue="default", tags=["x"]).with_options(max_attempts=4)
    async with Oban(url, queues={"default": 5}) as oban:
        enqueued = await other.enqueue(1, 2)
        assert (enqueued.queue, enqueued.priority, enqueued.max_attempts) == ("default", 3, 4)
        assert enqueued.tags == ["x"]
        assert await recorded(oban, enqueued) == 3
    assert add.new(1).queue == "media"


async def test_arguments_that_a_function_no_longer_takes_are_a_failed_attempt(url: URL) -> None:
    async with Oban(url, queues={"media": 5}) as oban:
        gone = add.new(1)
        gone.args = {"a": 1, "c": 2}
        row = await reaches(oban, await oban.enqueue(gone), JobState.RETRYABLE)
        assert "takes no c" in row.errors[0]["error"]
        short = add.new(1)
        short.args = {}
        row = await reaches(oban, await oban.enqueue(short), JobState.RETRYABLE)
        assert "missing" in row.errors[0]["error"]


async def test_a_worker_enqueues_through_the_instance_that_runs_it(url: URL) -> None:
    class Child(Worker, oban="Family"):
        async def process(self, job: Job) -> None:
            return None

    class Parent(Worker, oban="Family"):
        async def process(self, job: Job) -> Record:
            return Record((await Child.enqueue()).id)

    async with Oban(url, name="Family", queues={"default": 5}) as oban:
        parent = await Parent.enqueue()
        await reaches(oban, await recorded(oban, parent), JobState.COMPLETED)


async def test_an_unknown_worker_fails_an_attempt_and_another_node_can_run_the_job(
    url: URL,
) -> None:
    # A different name for each database, as a registered worker stays registered.
    name = f"not.here.{url.drivername}"
    async with Oban(url, queues={"default": 1}) as oban:
        unknown = await oban.enqueue(Job(worker=name))
        row = await reaches(oban, unknown, JobState.RETRYABLE)
        assert row.attempt == 1
        (entry,) = row.errors
        assert entry["attempt"] == 1
        assert name in entry["error"]
        assert "import" in entry["error"]
        assert "Traceback" not in entry["error"]

        class Yet(Worker, name=name):
            async def process(self, job: Job) -> Record:
                return Record(job.attempt)

        await oban.update_job(unknown, {"schedule_in": 0})
        assert await recorded(oban, unknown) == 2


async def test_a_name_in_a_row_never_imports_a_module(
    url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "planted_module.py"
    trace = tmp_path / "imported"
    planted.write_text(
        f"open({str(trace)!r}, 'w').close()\nclass Evil:\n    async def process(self, job): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    names = ["planted_module.Evil", "planted_module:Evil", "planted_module", "os.system", "builtins.exec"]
    async with Oban(url, queues={"default": 1}) as oban:
        async with oban.engine.begin() as connection:
            for name in names:
                statement = text("INSERT INTO oban_jobs (worker) VALUES (:name)")
                await connection.execute(statement, {"name": name})
        for row in await oban.list_jobs():
            failed = await reaches(oban, row, JobState.RETRYABLE)
            assert "UnknownWorker" in failed.errors[0]["error"]
    assert not trace.exists()
    assert "planted_module" not in sys.modules
    assert not any(name in registry for name in names)
