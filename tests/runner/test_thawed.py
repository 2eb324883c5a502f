"""A node that was frozen after it had claimed jobs starts only those that are still its own."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import URL, update

from oban import Job, JobState, Oban, clock
from oban.database.aio import Database
from oban.repository import acknowledge, fetch
from oban.repository import runs as repository
from oban.repository.acknowledge import Ack
from oban.runner.execution import claims, process_run
from oban.runner.execution.claims import Claims
from oban.runner.execution.run import Run
from oban.runner.processes.worker_process import ProcessRun
from tests.runner.process_workers import InProcess
from tests.support.internals import database_of, look_for_strays, producer_of, runner_of
from tests.support.jobs import reaches, row_of
from tests.support.options import NO_POLLING
from tests.support.waiting import eventually
from tests.support.workers import Runs

pytestmark = pytest.mark.either_driver

LEASE = 60.0


class Suspended(clock.Clock):
    """A machine that is suspended: only the boot time goes on."""

    seconds = 0.0

    def boottime(self) -> float:
        return super().boottime() + self.seconds


class Frozen:
    """Freezes a node for a lease when it has sent something, before it reads the answer."""

    def __init__(self, oban: Oban, now: Suspended, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.left = 1
        self.now = now
        #: What other nodes do meanwhile.
        self.meanwhile: Callable[[], Any] = lambda: asyncio.sleep(0)
        self._real = getattr(runner_of(oban).database, name)
        #: Keeps a second turn, which fetches the later jobs, from being the one that is frozen.
        self._lock = asyncio.Lock()
        monkeypatch.setattr(runner_of(oban).database, name, self)

    async def __call__(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        if function not in (fetch.acknowledge_and_fetch, repository.load_run):
            return await self._real(function, *args, **kwargs)
        async with self._lock:
            result = await self._real(function, *args, **kwargs)
            if result and self.left:
                self.left -= 1
                await self.meanwhile()
                self.now.seconds += LEASE
        return result


async def freeze(oban: Oban, now: Suspended, monkeypatch: pytest.MonkeyPatch, name: str) -> Frozen:
    """Freeze a node in a turn that begins after this."""
    # The turn of its start may still be under way.
    await producer_of(oban).settled()
    return Frozen(oban, now, monkeypatch, name)


async def take_over(client: Oban, job: Job) -> None:
    """Rescue a job of another node, and complete it."""
    database, row = database_of(client), await row_of(client, job)
    owner = row.attempted_by[1]
    await database.write(acknowledge.acknowledge, [Ack(job.id, row.attempt, owner, "rescued", rescued=1)])
    (again,) = await database.write(fetch.fetch, job.queue, 1, "other", "owner")
    assert again.id == job.id
    await database.write(acknowledge.acknowledge, [Ack(job.id, again.attempt, "owner", "completed")])


async def test_only_jobs_that_are_still_its_own_start(
    url: URL, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs = Runs()
    with clock.use(Suspended()) as now:
        async with (
            Oban(url, name="client") as client,
            Oban(url, queues={"default": 5}, lease=LEASE, **NO_POLLING) as oban,
        ):
            frozen = await freeze(oban, now, monkeypatch, "write")
            jobs: list[Job] = []
            enqueued = asyncio.Event()

            async def meanwhile() -> None:
                # The notification can be faster than the answer to the client.
                await enqueued.wait()
                await take_over(client, jobs[0])
                await client.cancel_job(jobs[1])

            frozen.meanwhile = meanwhile
            jobs += await client.enqueue_many([runs.worker.new() for _ in range(4)])
            enqueued.set()
            producer_of(oban).wake()
            await runs.begun(2)
            runs.finish_all()
            for job in jobs[2:]:
                assert (await reaches(client, job, JobState.COMPLETED)).attempt == 1
            assert sorted(job.id for job in runs.jobs) == [job.id for job in jobs[2:]]
            taken, cancelled = [await row_of(client, job) for job in jobs[:2]]
            assert (taken.state, taken.attempt) == (JobState.COMPLETED, 2)
            assert cancelled.state is JobState.CANCELLED
            # Their places are free.
            assert producer_of(oban).check().running == ()
    (record,) = [record for record in caplog.records if "this node has lost" in record.getMessage()]
    assert record.getMessage().endswith(f": {jobs[0].id}, {jobs[1].id}")


async def test_a_job_whose_claim_was_lost_starts_only_if_it_is_still_its_own(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    with clock.use(Suspended()) as now:
        async with (
            Oban(url, name="client") as client,
            Oban(url, queues={"default": 5}, lease=LEASE, **NO_POLLING) as oban,
        ):
            producer = producer_of(oban)
            frozen = await freeze(oban, now, monkeypatch, "read")
            first = await client.enqueue(runs.worker.new(queue="elsewhere"))
            frozen.meanwhile = lambda: take_over(client, first)
            await database_of(client).write(fetch.fetch, "elsewhere", 1, "node", producer.owner)
            look_for_strays(producer)
            await eventually(lambda: not frozen.left)
            second = await oban.enqueue(runs.worker.new())
            assert (await runs.begun(1)).id == second.id
            runs.finish_all()
            assert (await row_of(client, first)).attempt == 2


class Asked:
    """A database that counts the questions about runs, and fails the first ones."""

    def __init__(self, database: Database, failures: int = 0) -> None:
        self._database = database
        self.failures = failures
        self.asked: list[int] = []
        self.after: Callable[[], object] = lambda: None

    async def read(self, function: Any, keys: Any) -> Any:
        self.asked.append(len(keys))
        if len(self.asked) <= self.failures:
            raise ConnectionError("no route")
        answer = await self._database.read(function, keys)
        self.after()
        return answer


async def claimed(client: Oban, number: int) -> list[Run]:
    await client.enqueue_many([Job(worker="any") for _ in range(number)])
    jobs = await database_of(client).write(fetch.fetch, "default", number, "node", "owner")
    return [Run(job, "owner", "node", 0.0) for job in jobs]


async def test_all_jobs_that_wait_to_start_are_asked_for_together(url: URL) -> None:
    async with Oban(url) as client:
        runs = await claimed(client, 20)
        asked = Asked(database_of(client))
        started = runs.pop()
        started.started_at = clock.monotonic()
        listed = {*runs, started}
        guard = Claims(cast(Database, asked), "default", LEASE, listed)
        async with client.engine.begin() as connection:
            taken = update(Job).where(Job.id == runs[3].key[0]).values(attempted_by=["other", "else"])
            await connection.execute(taken)
        ours = await asyncio.gather(*map(guard.confirm, runs))
        assert ours == [run is not runs[3] for run in runs]
        assert asked.asked == [19]
        assert listed == {*runs, started} - {runs[3]}
        # They are sure now.
        assert await guard.confirm(runs[0])
        assert asked.asked == [19]


async def test_a_job_waits_while_the_database_cannot_say_whose_it_is(
    url: URL, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(claims, "PAUSE", 0.01)
    async with Oban(url) as client:
        runs = await claimed(client, 1)
        asked = Asked(database_of(client), failures=2)
        assert await Claims(cast(Database, asked), "default", LEASE, set(runs)).confirm(runs[0])
        assert len(asked.asked) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "asking whether jobs of queue default still belong to this node failed: no route"
    ] * 2


async def test_an_answer_that_takes_too_long_as_well_is_asked_for_again(url: URL) -> None:
    with clock.use(Suspended()) as now:
        async with Oban(url) as client:
            runs = await claimed(client, 1)
            asked = Asked(database_of(client))

            def freeze() -> None:
                now.seconds += LEASE if len(asked.asked) == 1 else 0

            asked.after = freeze
            assert await Claims(cast(Database, asked), "default", LEASE, set(runs)).confirm(runs[0])
            assert len(asked.asked) == 2


async def test_a_stop_puts_back_a_job_that_nobody_knows_to_be_its_own(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    with clock.use(Suspended()) as now:
        async with Oban(url, name="client") as client:
            oban = Oban(url, queues={"default": 5}, lease=LEASE, **{**NO_POLLING, "shutdown_grace_period": 0})
            await oban.start()
            frozen = await freeze(oban, now, monkeypatch, "write")
            read = runner_of(oban).database.read
            failed: list[object] = []

            async def fail(function: Any, *args: Any) -> Any:
                if function is repository.lost_runs:
                    failed.append(args)
                    raise ConnectionError("no route")
                return await read(function, *args)

            monkeypatch.setattr(runner_of(oban).database, "read", fail)
            job = await client.enqueue(runs.worker.new())
            producer_of(oban).wake()
            await eventually(lambda: failed and not frozen.left)
            await oban.stop()
            row = await row_of(client, job)
            assert (row.state, row.attempt, runs.jobs) == (JobState.AVAILABLE, 0, [])


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_job_does_not_begin_in_a_child_process_before_it_is_sure_to_be_its_own(
    sqlite_url: URL, is_lost: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Run] = []
    confirm = Claims.confirm

    async def counting(self: Claims, run: Run) -> bool:
        asked.append(run)
        if is_lost:
            await take_over(client, run.job)
        return await confirm(self, run)

    monkeypatch.setattr(Claims, "confirm", counting)
    frozen: list[ProcessRun] = []

    def freeze(worker: Any, job: Job, timeout: float | None, run: Run) -> ProcessRun:
        if not frozen:
            # The node and its child processes freeze while the first child starts.
            run.sure_until = clock.boottime()
        frozen.append(ProcessRun(worker, job, timeout, run))
        return frozen[-1]

    monkeypatch.setattr(process_run, "ProcessRun", freeze)
    begun = tmp_path / "begun"
    async with (
        Oban(sqlite_url, name="client") as client,
        Oban(sqlite_url, queues={"default": 5}, lease=LEASE, **NO_POLLING) as oban,
    ):
        job = await client.enqueue(InProcess.new({"do": "touch", "path": str(begun)}))
        producer_of(oban).wake()
        row = await reaches(client, job, JobState.COMPLETED)
        await eventually(lambda: not producer_of(oban).runs)
        assert (len(asked), row.attempt, begun.exists()) == (1, 1 + is_lost, not is_lost)
