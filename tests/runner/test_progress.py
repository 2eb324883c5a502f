"""Progress that jobs report is stored while they run, and with their outcome, for each kind of worker."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from oban import Job, JobState, Oban, Progress, Worker, forks
from oban.repository import progress as repository
from oban.runner.execution.run import Run
from oban.runner.services import progress as service
from tests.support.internals import database_of, runner_of
from tests.support.jobs import reaches, row_of
from tests.support.options import FAST_POLLING
from tests.support.reporting_workers import (
    KINDS,
    InHelperThreads,
    InThread,
    OnLoop,
    WithSession,
    WithSessionInThread,
    report,
    until_released,
)
from tests.support.waiting import eventually

pytestmark = pytest.mark.execution

SESSION_KINDS: set[type[Worker]] = {WithSession, WithSessionInThread}
READING = {"progress": [[1], [3, 10, "reading"]]}


@pytest.fixture
async def oban(url: URL) -> AsyncIterator[Oban]:
    options: dict[str, Any] = {**FAST_POLLING, "progress_interval": 0.02}
    async with Oban(url, queues={"default": 10}, node="here", **options) as running:
        yield running


def values(progress: Progress | None) -> tuple[Any, ...] | None:
    return None if progress is None else (progress.done, progress.total, progress.message, progress.attempt)


async def shows(oban: Oban, job: Job, *expected: Any) -> Job:
    """Wait until the row of a job shows a progress, and return it."""

    async def look() -> Job | None:
        row = await row_of(oban, job)
        return row if values(row.last_progress) == expected else None

    found: Job = await eventually(look)
    return found


async def test_progress_is_stored_while_jobs_run_and_when_they_have_ended(
    oban: Oban, url: URL, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    args = {**READING, "gate": str(gate)}
    jobs = {kind: await oban.enqueue(kind.new(args, meta={"own": [1]})) for kind in KINDS}
    for kind, job in jobs.items():
        # On SQLite, a row cannot be changed while the session of its job is open.
        if kind in SESSION_KINDS and url.get_backend_name() == "sqlite":
            await reaches(oban, job, JobState.EXECUTING)
            continue
        row = await shows(oban, job, 3, 10, "reading", 1)
        assert row.state == JobState.EXECUTING
        assert row.current_progress == row.last_progress
        assert row.last_progress is not None
        assert row.last_progress.fraction == 0.3
        assert row.attempted_at is not None
        assert row.last_progress.at >= row.attempted_at
    gate.touch()
    for job in jobs.values():
        row = await reaches(oban, job, JobState.COMPLETED)
        assert values(row.last_progress) == (3, 10, "reading", 1)
        assert row.meta["own"] == [1]
        assert set(row.meta) == {"own", "progress"}


async def test_every_outcome_stores_the_last_progress(sqlite_url: URL) -> None:
    ends: dict[str, tuple[JobState, dict[str, Any]]] = {
        "fail": (JobState.RETRYABLE, {}),
        "cancel": (JobState.CANCELLED, {}),
        "snooze": (JobState.SCHEDULED, {"cursor": 7, "snoozed": 1}),
        "record": (JobState.COMPLETED, {"recorded": True, "return": {"rows": 3}}),
    }
    # Too long an interval for a statement of its own.
    async with Oban(sqlite_url, queues={"default": 5}, **FAST_POLLING, progress_interval=60) as oban:
        for end, (state, meta) in ends.items():
            # One after another, so that the child process is used again.
            for job in await oban.enqueue_many(
                [kind.new({**READING, "end": end}, meta={"own": 1}) for kind in KINDS]
            ):
                row = await reaches(oban, job, state)
                assert values(row.last_progress) == (3, 10, "reading", 1)
                row.meta.pop("progress")
                assert row.meta == {"own": 1, **meta}


async def test_outcomes_of_each_database_merge_progress_into_meta(oban: Oban) -> None:
    ends = {"fail": JobState.RETRYABLE, "snooze": JobState.SCHEDULED, "record": JobState.COMPLETED}
    for end, state in ends.items():
        job = await oban.enqueue(OnLoop.new({**READING, "end": end}, meta={"own": {"a": None}}))
        row = await reaches(oban, job, state)
        assert values(row.last_progress) == (3, 10, "reading", 1)
        assert row.meta["own"] == {"a": None}


async def test_a_retry_does_not_show_the_progress_of_the_attempt_before(oban: Oban, tmp_path: Path) -> None:
    job = await oban.enqueue(OnLoop.new({**READING, "end": "fail"}))
    await reaches(oban, job, JobState.RETRYABLE)
    gate = tmp_path / "gate"
    await oban.update_job(job, {"args": {"gate": str(gate)}})
    await oban.retry_job(job)
    row = await reaches(oban, job, JobState.EXECUTING)
    # A worker can go on from where the attempt before it was.
    assert values(row.last_progress) == (3, 10, "reading", 1)
    assert row.current_progress is None
    gate.touch()
    await reaches(oban, job, JobState.COMPLETED)


async def test_progress_after_a_snooze_is_told_from_the_one_before_it(oban: Oban, tmp_path: Path) -> None:
    job = await oban.enqueue(OnLoop.new({**READING, "end": "snooze"}))
    await reaches(oban, job, JobState.SCHEDULED)
    gate = tmp_path / "gate"
    await oban.update_job(job, {"args": {"gate": str(gate)}})
    await oban.retry_job(job)
    row = await reaches(oban, job, JobState.EXECUTING)
    # The attempt has the same number, because a snooze does not count.
    assert row.last_progress is not None
    assert (row.attempt, row.last_progress.attempt, row.current_progress) == (1, 1, None)
    gate.touch()
    await reaches(oban, job, JobState.COMPLETED)


async def test_threads_of_a_job_can_report_at_the_same_time(oban: Oban) -> None:
    job = await oban.enqueue(InHelperThreads.new())
    row = await reaches(oban, job, JobState.COMPLETED)
    assert values(row.last_progress) == (1000, 1000, None, 1)


def test_a_forked_child_waits_for_no_lock_that_another_thread_had(monkeypatch: pytest.MonkeyPatch) -> None:
    job = OnLoop.new()
    job.__dict__.update(id=1, attempt=1)
    run = Run(job, "owner", "here")
    monkeypatch.setattr(forks, "is_child", True)
    job.progress(1)
    job.log.info("line")
    assert run.report is None


async def test_many_reports_of_many_jobs_are_few_statements(
    sqlite_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[int] = []

    def counting(tx: Any, progress: Any) -> set[int]:
        statements.append(len(progress))
        return repository.store_progress(tx, progress)

    monkeypatch.setattr(service, "store_progress", counting)
    reported = asyncio.Event()
    release = asyncio.Event()

    class Loops(Worker, name="tests.progress.Loops"):
        async def process(self, job: Job) -> None:
            for step in range(2000):
                job.progress(step, 2000)
            reported.set()
            await release.wait()

    async with Oban(sqlite_url, queues={"default": 20}, **FAST_POLLING, progress_interval=30) as oban:
        jobs = await oban.enqueue_many([Loops.new() for _ in range(20)])
        # The first statement is sent at once, and all else waits for the interval.
        await eventually(lambda: statements)
        await reported.wait()
        release.set()
        for job in jobs:
            row = await reaches(oban, job, JobState.COMPLETED)
            assert values(row.last_progress) == (1999, 2000, None, 1)
    assert len(statements) <= 2


async def test_meta_that_somebody_else_changes_keeps_both(oban: Oban, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = await oban.enqueue(InThread.new({**READING, "gate": str(gate)}, meta={"own": 1}))
    await shows(oban, job, 3, 10, "reading", 1)
    await oban.update_job(job, {"meta": {"theirs": 2}})
    gate.touch()
    row = await reaches(oban, job, JobState.COMPLETED)
    assert row.meta.keys() == {"theirs", "progress"}


async def test_nobody_waits_for_a_row_that_is_locked(postgresql_url: URL, tmp_path: Path) -> None:
    options: dict[str, Any] = {**FAST_POLLING, "progress_interval": 0.02}
    async with (
        Oban(postgresql_url, queues={"default": 2}, **options) as oban,
        AsyncSession(oban.engine) as session,
    ):
        locked, free = await oban.enqueue_many(
            [OnLoop.new({"gate": str(tmp_path / name)}) for name in ("locked", "free")]
        )
        for job in (locked, free):
            await reaches(oban, job, JobState.EXECUTING)
        statement = text("SELECT id FROM oban_jobs WHERE id = :id FOR UPDATE")
        await session.execute(statement, {"id": locked.id})
        for run in producer_runs(oban):
            run.job.progress(5)
        await shows(oban, free, 5, None, None, 1)
        assert (await row_of(oban, locked)).last_progress is None
        await session.rollback()
        # It is tried again.
        await shows(oban, locked, 5, None, None, 1)
        (tmp_path / "locked").touch()
        (tmp_path / "free").touch()
        for job in (locked, free):
            await reaches(oban, job, JobState.COMPLETED)


def producer_runs(oban: Oban) -> list[Any]:
    return list(runner_of(oban).queues.runs())


class ChoosesLevel(Worker):
    """Chooses the isolation level of its session itself."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        await session.execute(text("SELECT count(*) FROM oban_jobs"))
        report(job)
        await until_released(job)


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        (WithSession, "REPEATABLE READ"),
        (WithSessionInThread, "SERIALIZABLE"),
        (ChoosesLevel, "READ COMMITTED"),
        (WithSession, "AUTOCOMMIT"),
    ],
)
async def test_progress_fails_no_job_at_a_stricter_isolation_level(
    emptied_postgresql: URL, tmp_path: Path, kind: type[Worker], level: str
) -> None:
    options: dict[str, Any] = {**FAST_POLLING, "progress_interval": 0.02}
    args = {"gate": str(tmp_path / "gate")}
    async with (
        engine_at(emptied_postgresql, level) as engine,
        Oban(engine, queues={"default": 2}, **options) as oban,
    ):
        job, free = await oban.enqueue_many([kind.new({**args, **READING}), OnLoop.new({**args, **READING})])
        # Both workers have made their last report, and their transactions have begun.
        last = (3, 10, "reading", 1)
        await eventually(lambda: [values(run.progress) for run in producer_runs(oban)] == [last, last])
        for run in producer_runs(oban):
            run.job.progress(4)
        # The other job tells when a statement was sent.
        await shows(oban, free, 4, None, None, 1)
        assert (await row_of(oban, job)).last_progress is None
        (tmp_path / "gate").touch()
        row = await reaches(oban, job, JobState.COMPLETED, JobState.RETRYABLE)
        assert (row.state, row.errors, values(row.last_progress)) == (
            JobState.COMPLETED,
            [],
            (4, None, None, 1),
        )


@contextlib.asynccontextmanager
async def engine_at(url: URL, level: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url, isolation_level=level)
    try:
        yield engine
    finally:
        await engine.dispose()


async def test_a_lost_job_stores_nothing_and_fails_nothing(oban: Oban, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = await oban.enqueue(OnLoop.new({"gate": str(gate)}))
    await reaches(oban, job, JobState.EXECUTING)
    (run,) = producer_runs(oban)
    await oban.cancel_job(job)
    run.job.progress(1, 2)
    await eventually(lambda: not producer_runs(oban))
    assert "progress" not in (await row_of(oban, job)).meta
    # A thread that the job has left behind can go on reporting.
    run.job.progress(2, 2)
    run.job.log.info("too late")


async def test_progress_waits_during_an_outage(
    sqlite_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = [True]
    tries: list[int] = []

    def away(tx: Any, progress: Any) -> set[int]:
        tries.append(len(progress))
        if outage[0]:
            raise ConnectionRefusedError("no database")
        return repository.store_progress(tx, progress)

    monkeypatch.setattr(service, "store_progress", away)
    options: dict[str, Any] = {**FAST_POLLING, "progress_interval": 0.02}
    async with Oban(sqlite_url, queues={"default": 1}, **options) as oban:
        monkeypatch.setattr(runner_of(oban).progress, "max_backoff", 0.02)
        gate = tmp_path / "gate"
        job = await oban.enqueue(OnLoop.new({**READING, "gate": str(gate)}))
        await eventually(lambda: len(tries) >= 2)
        outage[0] = False
        await shows(oban, job, 3, 10, "reading", 1)
        gate.touch()
        await reaches(oban, job, JobState.COMPLETED)


async def test_a_row_that_refuses_progress_does_not_keep_it_from_others(
    oban: Oban, tmp_path: Path, url: URL
) -> None:
    gate = tmp_path / "gate"
    args = {"gate": str(gate)}
    refused, other = await oban.enqueue_many([OnLoop.new({**args, "x": index}) for index in range(2)])
    for job in (refused, other):
        await reaches(oban, job, JobState.EXECUTING)
    async with refusing_progress(oban, refused.id):
        for run in producer_runs(oban):
            run.job.progress(5)
        await shows(oban, other, 5, None, None, 1)
        assert (await row_of(oban, refused)).last_progress is None
        gate.touch()
        # The outcome is stored without it.
        row = await reaches(oban, refused, JobState.COMPLETED)
        assert row.last_progress is None
        assert row.errors == []


@contextlib.asynccontextmanager
async def refusing_progress(oban: Oban, job_id: int) -> AsyncIterator[None]:
    """Let a trigger of the application refuse progress of a job."""
    if database_of(oban).dialect.single_writer:
        create = [
            "CREATE TRIGGER refuse BEFORE UPDATE ON oban_jobs"
            f" WHEN NEW.id = {job_id} AND json_type(NEW.meta, '$.progress') IS NOT NULL"
            " BEGIN SELECT RAISE(ABORT, 'no progress'); END"
        ]
        drop = ["DROP TRIGGER refuse"]
    else:
        create = [
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE check_violation USING message = 'no progress'; END $$",
            "CREATE TRIGGER refuse BEFORE UPDATE ON oban_jobs FOR EACH ROW"
            f" WHEN (NEW.id = {job_id} AND NEW.meta ? 'progress') EXECUTE FUNCTION refuse()",
        ]
        drop = ["DROP TRIGGER refuse ON oban_jobs", "DROP FUNCTION refuse"]
    await execute(oban, create)
    try:
        yield
    finally:
        await execute(oban, drop)


async def execute(oban: Oban, statements: list[str]) -> None:
    async with oban.engine.begin() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)
