"""A worker's session: its writes are stored together with the outcome of the job, or not at all."""

from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from oban import Cancel, Job, JobState, Oban, Record, Snooze, current_job
from tests.runner.effects import (
    RUNNING,
    Effect,
    Halting,
    effect,
    effects,
    effects_table,
    nothing_leaked,
    worker,
)
from tests.support.faulty_rows import refuse_values
from tests.support.jobs import acknowledged, reaches, row_of
from tests.support.waiting import eventually


async def test_the_writes_of_a_job_are_stored_with_its_completion(table: URL, form: str) -> None:
    seen: list[Any] = []

    def body(job: Job, session: Session) -> None:
        effect(job, session)
        session.flush()
        seen.append((type(session), current_job() is job, session.scalar(text("SELECT 1"))))

    made = worker(form, body)
    async with Oban(table, **RUNNING) as oban:
        job = await oban.enqueue(made.new())
        row = await reaches(oban, job, JobState.COMPLETED)
        assert await effects(oban) == [f"{job.id}/1"]
        assert (row.attempt, row.errors) == (1, [])
        assert row.completed_at is not None
        assert seen == [(Session, True, 1)]
        await eventually(lambda: nothing_leaked(oban))


@pytest.mark.parametrize(
    ("form", "result", "state", "errors"),
    [
        ("async", Record(7), JobState.COMPLETED, False),
        ("thread", Record(7), JobState.COMPLETED, True),
        ("async", Snooze(60), JobState.SCHEDULED, False),
        ("thread", Cancel("refuse me"), JobState.CANCELLED, False),
    ],
    ids=["Record", "Record without errors", "Snooze", "Cancel"],
)
async def test_the_writes_of_a_job_are_stored_if_only_the_value_of_its_outcome_is_refused(
    fresh_url: URL, form: str, result: Any, state: JobState, errors: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def body(job: Job, session: Session) -> Any:
        effect(job, session)
        return result

    with effects_table(fresh_url):
        async with Oban(fresh_url, **RUNNING) as oban:
            await refuse_values(oban.engine, errors=errors)
            job = await oban.enqueue(worker(form, body).new())
            row = await reaches(oban, job, state)
            assert await effects(oban) == [f"{job.id}/1"]
            assert row.meta == {}
            assert ["could not be stored" in entry["error"] for entry in row.errors] == [True] * (not errors)
            await eventually(lambda: nothing_leaked(oban))
    (logged,) = [record for record in caplog.records if record.name == "oban.acknowledger"]
    assert "was stored without its value or text" in logged.getMessage()


@pytest.mark.parametrize(
    ("form", "result", "state", "shown"),
    [
        ("async", Record({"n": 1}), JobState.COMPLETED, {"recorded": True, "return": {"n": 1}}),
        ("thread", Snooze(60), JobState.SCHEDULED, {"snoozed": 1}),
        ("async", Snooze(60, {"page": 2}), JobState.SCHEDULED, {"page": 2, "snoozed": 1}),
        ("async", Cancel("enough"), JobState.CANCELLED, {}),
    ],
    ids=["Record", "Snooze", "Snooze with meta", "Cancel"],
)
async def test_the_returned_outcome_is_stored_with_the_writes(
    one_table: URL, form: str, result: Any, state: JobState, shown: Any
) -> None:
    def body(job: Job, session: Session) -> Any:
        effect(job, session)
        return result

    async with Oban(one_table, **RUNNING) as oban:
        row = await reaches(oban, await oban.enqueue(worker(form, body).new()), state)
        assert await effects(oban) == [f"{row.id}/1"]
        assert row.meta == shown
        assert row.attempt == (0 if state is JobState.SCHEDULED else 1)
        assert [entry["error"] for entry in row.errors] == (["enough"] if isinstance(result, Cancel) else [])


async def test_a_raise_rolls_back_and_is_recorded(table: URL, form: str) -> None:
    def body(job: Job, session: Session) -> None:
        effect(job, session)
        session.flush()
        raise ValueError("after the effect")

    async with Oban(table, **RUNNING) as oban:
        row = await reaches(oban, await oban.enqueue(worker(form, body).new()), JobState.RETRYABLE)
        assert await effects(oban) == []
        assert row.errors[0]["error"].endswith("ValueError: after the effect")
        await eventually(lambda: nothing_leaked(oban))


async def test_a_flush_that_fails_at_the_end_fails_the_attempt(one_table: URL, form: str) -> None:
    def body(job: Job, session: Session) -> None:
        session.add_all([Effect(name="same"), Effect(name="same")])

    async with Oban(one_table, **RUNNING) as oban:
        row = await reaches(oban, await oban.enqueue(worker(form, body).new()), JobState.RETRYABLE)
        assert await effects(oban) == []
        assert "IntegrityError" in row.errors[0]["error"]
        await eventually(lambda: nothing_leaked(oban))


async def test_a_session_that_was_left_in_a_failed_state_fails_the_attempt(one_table: URL, form: str) -> None:
    def body(job: Job, session: Session) -> None:
        effect(job, session)
        session.flush()
        session.add(Effect(name=f"{job.id}/{job.attempt}"))
        with pytest.raises(IntegrityError):
            session.flush()

    made = worker(form, body)

    def good(job: Job, session: Session) -> None:
        effect(job, session)

    async with Oban(one_table, **RUNNING) as oban:
        row = await reaches(oban, await oban.enqueue(made.new()), JobState.RETRYABLE)
        assert await effects(oban) == []
        assert "PendingRollbackError" in row.errors[0]["error"]
        # The next job on the same connection works.
        await reaches(oban, after := await oban.enqueue(worker(form, good).new()), JobState.COMPLETED)
        assert await effects(oban) == [f"{after.id}/1"]
        await eventually(lambda: nothing_leaked(oban))


async def test_a_savepoint_can_fail_and_the_other_writes_are_stored(one_table: URL, form: str) -> None:
    def body(job: Job, session: Session) -> None:
        effect(job, session)
        session.flush()
        with pytest.raises(IntegrityError), session.begin_nested():
            session.add(Effect(name=f"{job.id}/{job.attempt}"))

    async with Oban(one_table, **RUNNING) as oban:
        job = await reaches(oban, await oban.enqueue(worker(form, body).new()), JobState.COMPLETED)
        assert await effects(oban) == [f"{job.id}/1"]


async def test_writes_that_a_job_commits_itself_are_stored(one_table: URL, form: str) -> None:
    def body(job: Job, session: Session) -> None:
        session.add(Effect(name="first"))
        session.commit()
        first = session.get(Effect, 1)
        assert first is not None
        assert first.name == "first"
        session.add(Effect(name="second"))
        session.flush()
        if job.attempt == 1:
            raise ValueError("after a commit")

    async with Oban(one_table, **RUNNING) as oban:
        await reaches(oban, await oban.enqueue(worker(form, body).new()), JobState.RETRYABLE)
        assert await effects(oban) == ["first"]
        await eventually(lambda: nothing_leaked(oban))


async def test_a_commit_that_fails_fails_the_attempt(
    emptied_postgresql: URL, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    def body(job: Job, session: Session) -> None:
        session.execute(text("INSERT INTO later VALUES (1), (1)"))

    async with Oban(emptied_postgresql, **RUNNING) as oban:
        async with oban.engine.begin() as connection:
            await connection.execute(text("DROP TABLE IF EXISTS later"))
            await connection.execute(text("CREATE TABLE later (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
        row = await reaches(oban, await oban.enqueue(worker(form, body).new()), JobState.RETRYABLE)
        assert "IntegrityError" in row.errors[0]["error"]
        (record,) = (record for record in caplog.records if record.name == "oban.executor")
        assert "failed, attempt 1 of 20, retrying in" in record.getMessage()
        assert "IntegrityError" in record.getMessage()
        assert record.exc_info is not None
        async with oban.engine.begin() as connection:
            assert await connection.scalar(text("SELECT count(*) FROM later")) == 0
            await connection.execute(text("DROP TABLE later"))
        await eventually(lambda: nothing_leaked(oban))


async def cancel(oban: Oban, job: Job) -> None:
    assert await oban.cancel_job(job.id)


async def cancel_and_delete(oban: Oban, job: Job) -> None:
    await cancel(oban, job)
    assert await oban.delete_job(job.id)


async def cancel_and_retry(oban: Oban, job: Job) -> None:
    await oban.pause_queue("default")
    await cancel(oban, job)
    assert await oban.retry_job(job.id)


async def rescue(oban: Oban, job: Job) -> None:
    async with oban.engine.begin() as connection:
        changed = text("UPDATE oban_jobs SET state = 'available' WHERE id = :id")
        await connection.execute(changed, {"id": job.id})


@pytest.mark.parametrize(
    ("meanwhile", "form"),
    [
        (cancel, "async"),
        (cancel, "thread"),
        (cancel_and_delete, "async"),
        (cancel_and_retry, "thread"),
        (rescue, "async"),
    ],
)
async def test_a_run_that_has_lost_its_job_leaves_no_effect(
    one_table: URL, form: str, meanwhile: Any, caplog: pytest.LogCaptureFixture
) -> None:
    # On SQLite no other connection can change the row once the job has written.
    halting = Halting(
        form, writes_first=one_table.get_backend_name() != "sqlite", result=Record("by its run")
    )
    async with Oban(one_table, **RUNNING) as oban:
        job = await oban.enqueue(halting.worker.new())
        await eventually(halting.begun.is_set)
        await oban.pause_queue("default")
        await meanwhile(oban, job)
        before = await oban.get_job(job.id)
        halting.go.set()
        await eventually(lambda: not oban.check_all_queues()[0].running)
        assert (
            "was cancelled, rescued or deleted while it ran, attempt 1 of 20; its writes are" in caplog.text
        )
        assert await effects(oban) == []
        await oban.resume_queue("default")
        await acknowledged(oban)
        after = await oban.get_job(job.id)
        if before is not None and before.state is JobState.AVAILABLE:
            after = await reaches(oban, job, JobState.COMPLETED)
            assert (after.attempt, after.errors) == (2, [])
            assert await effects(oban) == [f"{job.id}/2"]
        elif before is not None:
            assert after is not None
            assert (after.state, after.meta, after.errors) == (JobState.CANCELLED, {}, [])
        else:
            assert after is None
        await eventually(lambda: nothing_leaked(oban))


@pytest.mark.parametrize(
    ("level", "form"),
    [
        ("REPEATABLE READ", "async"),
        ("SERIALIZABLE", "thread"),
        ("AUTOCOMMIT", "async"),
        ("AUTOCOMMIT", "thread"),
    ],
)
async def test_it_works_at_the_isolation_level_of_the_engine(
    emptied_postgresql: URL, form: str, level: str
) -> None:
    halting = Halting(form, writes_first=True, result=Cancel("why"))

    def fails(job: Job, session: Session) -> None:
        effect(job, session)
        session.flush()
        raise ValueError("bad")

    engine = create_async_engine(emptied_postgresql, isolation_level=level)
    with effects_table(emptied_postgresql):
        async with Oban(engine, **RUNNING) as oban:
            job = await oban.enqueue(halting.worker.new())
            await eventually(halting.begun.is_set)
            await cancel(oban, job)
            halting.go.set()
            await eventually(halting.ended.is_set)
            reason = await eventually(lambda: errors_of(oban, job))
            assert reason == ["why"]
            await reaches(oban, await oban.enqueue(worker(form, fails).new()), JobState.RETRYABLE)
            assert await effects(oban) == []
            done = await oban.enqueue(halting.worker.new())
            await reaches(oban, done, JobState.CANCELLED)
            assert await effects(oban) == [f"{done.id}/1"]
            await eventually(lambda: nothing_leaked(oban))
    await engine.dispose()


async def errors_of(oban: Oban, job: Job) -> list[str]:
    return [entry["error"] for entry in (await row_of(oban, job)).errors]


async def test_a_serialization_failure_is_a_failed_attempt(emptied_postgresql: URL, form: str) -> None:
    halting = Halting(form, writes_first=True)
    engine = create_async_engine(emptied_postgresql, isolation_level="REPEATABLE READ")
    with effects_table(emptied_postgresql):
        async with Oban(engine, **RUNNING) as oban:
            job = await oban.enqueue(halting.worker.new())
            await eventually(halting.begun.is_set)
            # The row changes, but the run still owns the job.
            await oban.update_job(job.id, {"tags": ["changed"]})
            halting.go.set()
            row = await reaches(oban, job, JobState.RETRYABLE)
            assert "could not serialize access" in row.errors[0]["error"]
            assert await effects(oban) == []
    await engine.dispose()


async def test_the_reason_that_a_cancelled_run_returns_is_stored(one_table: URL, form: str) -> None:
    lite = one_table.get_backend_name() == "sqlite"
    halting = Halting(form, writes_first=not lite, result=Cancel("why"))
    async with Oban(one_table, **RUNNING) as oban:
        job = await oban.enqueue(halting.worker.new())
        await eventually(halting.begun.is_set)
        await cancel(oban, job)
        halting.go.set()
        assert await eventually(lambda: errors_of(oban, job)) == ["why"]
        assert (await row_of(oban, job)).state is JobState.CANCELLED
        assert await effects(oban) == []


async def test_the_error_for_a_job_that_cancels_itself_in_its_session_says_how_to_do_it(
    one_table: URL, form: str
) -> None:
    def body(job: Job, session: Session) -> None:
        effect(job, session)
        session.execute(text("UPDATE oban_jobs SET state = 'cancelled' WHERE id = :id"), {"id": job.id})

    async with Oban(one_table, **RUNNING) as oban:
        row = await reaches(oban, await oban.enqueue(worker(form, body).new()), JobState.RETRYABLE)
        assert "return Cancel" in row.errors[0]["error"]
        assert await effects(oban) == []
