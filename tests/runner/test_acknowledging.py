"""Outcomes that the database refuses, or cannot store at the moment, are stored later."""

import itertools
from typing import Any

import pytest
from sqlalchemy import URL, select, text
from sqlalchemy.exc import DBAPIError

from oban import Cancel, Job, JobState, Oban, Record, Snooze
from oban.database.transaction import Transaction
from oban.repository import acknowledge, fetch
from tests.support.faulty_rows import refuse, refuse_values
from tests.support.internals import database_of, runner_of
from tests.support.jobs import reaches, row_of
from tests.support.options import FAST_POLLING, NO_POLLING
from tests.support.waiting import eventually
from tests.support.workers import Noop, Runs

TERMINATE = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


class Broken:
    """Replaces `acknowledge_and_fetch`, and raises in the first turns that acknowledge something."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error = error
        self.left = times
        self._real = fetch.acknowledge_and_fetch

    def __call__(self, session: Any, acks: Any, *args: Any) -> Any:
        jobs = self._real(session, acks, *args)
        if acks and self.left:
            self.left -= 1
            raise self.error
        return jobs


def failure(kind: str) -> Exception:
    if kind == "gone":
        return ConnectionError("the server has gone away")
    if kind == "unexpected":
        return RuntimeError("nobody knows")
    return DBAPIError("UPDATE …", {}, Exception("refused"))


@pytest.mark.parametrize("kind", ["gone", "refused", "unexpected"])
async def test_outcomes_that_could_not_be_stored_are_stored_later(
    url: URL, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 5}, **NO_POLLING) as oban:
        jobs = await oban.enqueue_many([runs.worker.new() for _ in range(5)])
        await runs.begun(5)
        broken = Broken(failure(kind), times=2 if kind == "gone" else 1)
        monkeypatch.setattr(fetch, "acknowledge_and_fetch", broken)
        for number in range(1, 5):
            runs.finish(number, Record(number))
        runs.fail(5, ValueError("bad"))
        # No other turn of this node stores them along with its own work.
        for number, job in enumerate(jobs[:4], 1):
            row = await reaches(oban, job, JobState.COMPLETED)
            assert (row.meta["return"], row.errors, row.attempt) == (number, [], 1)
        row = await reaches(oban, jobs[4], JobState.RETRYABLE)
        assert [entry["attempt"] for entry in row.errors] == [1]
        assert broken.left == 0


async def test_outcomes_survive_the_loss_of_every_connection(postgresql_url: URL) -> None:
    runs = Runs()
    async with (
        Oban(postgresql_url, name="client") as client,
        Oban(postgresql_url, queues={"default": 5}, **NO_POLLING) as oban,
    ):
        jobs = await oban.enqueue_many([runs.worker.new() for _ in range(5)])
        await runs.begun(5)
        async with client.engine.connect() as connection:
            await connection.execute(TERMINATE)
        runs.finish_all()
        for job in jobs:
            row = await reaches(client, job, JobState.COMPLETED)
            assert (row.attempt, row.errors) == (1, [])
        # The node continues as well.
        await reaches(client, await client.enqueue(Noop.new()), JobState.COMPLETED)


async def test_one_outcome_that_is_refused_does_not_stop_the_others(fresh_url: URL) -> None:
    runs = Runs()
    async with Oban(fresh_url, queues={"default": 5}, **FAST_POLLING) as oban:
        jobs = await oban.enqueue_many([runs.worker.new() for _ in range(5)])
        await runs.begun(5)
        await refuse(oban.engine, jobs[0].id, "completed")
        runs.finish_all()
        for job in jobs[1:]:
            await reaches(oban, job, JobState.COMPLETED)
        row = await reaches(oban, jobs[0], JobState.RETRYABLE)
        assert "could not be stored" in row.errors[0]["error"]
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)


@pytest.mark.parametrize("errors", [False, True], ids=["values", "values and errors"])
async def test_a_job_ends_as_it_did_if_only_its_value_or_text_is_refused(
    fresh_url: URL, errors: bool, caplog: pytest.LogCaptureFixture
) -> None:
    runs = Runs()
    async with Oban(fresh_url, queues={"default": 5}, **FAST_POLLING) as oban:
        jobs = await oban.enqueue_many([runs.worker.new() for _ in range(4)])
        await runs.begun(4)
        await refuse_values(oban.engine, errors=errors)
        for number, result in enumerate([Record(7), Snooze(60), Cancel("refuse me"), None], 1):
            runs.finish(number, result)
        states = [JobState.COMPLETED, JobState.SCHEDULED, JobState.CANCELLED, JobState.COMPLETED]
        for job, state in zip(jobs, states, strict=True):
            row = await reaches(oban, job, state, timeout=20)
            # A snooze does not count as an attempt.
            assert (row.attempt, row.meta) == (0 if state is JobState.SCHEDULED else 1, {})
            has_reason = job is not jobs[3] and not errors
            assert ["could not be stored" in entry["error"] for entry in row.errors] == [True] * has_reason
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)
    logged = [record.getMessage() for record in caplog.records if record.name == "oban.acknowledger"]
    assert sorted(message.split(", was stored")[0] for message in logged) == [
        f"job {job.id}, attempt 1: its outcome, {outcome}"
        for job, outcome in zip(jobs, ["completed", "snoozed", "cancelled"], strict=False)
    ]


async def test_a_row_that_refuses_every_change_does_not_stop_the_others(fresh_url: URL) -> None:
    runs = Runs()
    async with Oban(fresh_url, queues={"default": 5}, **FAST_POLLING) as oban:
        jobs = await oban.enqueue_many([runs.worker.new() for _ in range(5)])
        await runs.begun(5)
        await refuse(oban.engine, jobs[0].id)
        runs.finish_all()
        for job in jobs[1:]:
            await reaches(oban, job, JobState.COMPLETED)
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)
        # The outcome is retried, and stored once that is possible.
        async with oban.engine.begin() as connection:
            await connection.exec_driver_sql("DELETE FROM refused")
        await reaches(oban, jobs[0], JobState.COMPLETED, JobState.RETRYABLE, timeout=20)


async def test_an_outcome_that_cannot_be_written_as_json_does_not_stop_the_others(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 5}, **FAST_POLLING) as oban:
        # The largest integer that may be stored as JSON; the snooze adds one.
        largest = await oban.enqueue(runs.worker.new(meta={"snoozed": 2**64 - 1}))
        large = await oban.enqueue(runs.worker.new(meta={"snoozed": 2**63 - 1}))
        plain = await oban.enqueue_many([runs.worker.new() for _ in range(2)])
        await runs.begun(4)
        runs.finish(1, Snooze(60))
        runs.finish(2, Snooze(60))
        runs.finish_all()
        for job in plain:
            await reaches(oban, job, JobState.COMPLETED)
        for job in (largest, large):
            assert (await reaches(oban, job, JobState.SCHEDULED, JobState.RETRYABLE)).state
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)


async def test_an_acknowledgement_whose_answer_was_lost_is_repeated_without_harm(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    lost = [1, 2]
    async with Oban(url, queues={"default": 5}, **NO_POLLING) as oban:
        failed, cancelled, done = await oban.enqueue_many([runs.worker.new() for _ in range(3)])
        await runs.begun(3)
        await oban.cancel_job(cancelled)
        write = runner_of(oban).database.write

        async def write_and_lose(function: Any, *args: Any, **kwargs: Any) -> Any:
            result = await write(function, *args, **kwargs)
            if function is fetch.acknowledge_and_fetch and args[0] and lost:
                lost.pop()
                raise ConnectionError("after the commit")
            return result

        monkeypatch.setattr(runner_of(oban).database, "write", write_and_lose)
        runs.fail(1, ValueError("bad"))
        runs.fail(2, ValueError("bad"))
        runs.finish(3, Record("done"))
        await eventually(lambda: not lost)
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)
        for job, state in [(failed, JobState.RETRYABLE), (cancelled, JobState.CANCELLED)]:
            row = await row_of(oban, job)
            assert (row.state, row.attempt) == (state, 1)
            assert [entry["attempt"] for entry in row.errors] == [1]
        assert (await row_of(oban, done)).state is JobState.COMPLETED


async def test_the_cost_of_acknowledging_grows_linearly_with_the_number_of_jobs(sqlite_url: URL) -> None:
    async with Oban(sqlite_url) as client:
        steps: list[int] = []
        for number in (100, 400):
            await client.enqueue_many([Noop.new() for _ in range(number)])
            jobs = await database_of(client).write(
                fetch.acknowledge_and_fetch, [], "default", number, "node", "owner"
            )
            acks = [acknowledge.Ack(job.id, 1, "owner", "completed") for job in jobs]

            def steps_of(tx: Transaction, acks: list[acknowledge.Ack] = acks) -> int:
                steps = itertools.count()
                driver: Any = tx.connection().connection.driver_connection
                # SQLite calls this for every 100 steps of its virtual machine.
                driver._conn.set_progress_handler(lambda: next(steps) and 0, 100)
                acknowledge.acknowledge(tx, acks)
                driver._conn.set_progress_handler(None, 0)
                return next(steps)

            steps.append(await database_of(client).write(steps_of))
        assert steps[1] < steps[0] * 6


async def test_a_row_that_stays_locked_does_not_stop_its_queue(postgresql_url: URL) -> None:
    runs = Runs()
    async with Oban(postgresql_url, queues={"default": 5}, **FAST_POLLING) as oban:
        held, free = await oban.enqueue_many([runs.worker.new() for _ in range(2)])
        await runs.begun(2)
        async with oban.engine.begin() as connection:
            await connection.execute(select(Job.id).where(Job.id == held.id).with_for_update())
            runs.finish_all()
            await reaches(oban, free, JobState.COMPLETED)
            for job in await oban.enqueue_many([Noop.new() for _ in range(20)]):
                await reaches(oban, job, JobState.COMPLETED)
        row = await reaches(oban, held, JobState.COMPLETED)
        assert (row.attempt, row.errors) == (1, [])
