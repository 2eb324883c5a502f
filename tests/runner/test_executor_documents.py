"""A row with a document that no worker expects fails only its own job, with an error that says why."""

import functools
from typing import Any

import pytest
from sqlalchemy import URL, text

from oban import Job, JobState, Oban, Record, Snooze, Worker
from oban.encoding import Undecodable
from tests.support.jobs import acknowledged, reaches, row_of
from tests.support.options import FAST_POLLING
from tests.support.waiting import eventually

#: Documents that are not objects or that Python cannot decode, and the error messages.
BAD = {
    "null": "must be an object, not null",
    "[1]": "must be an object, not a list",
    "7": "must be an object, not a number",
    "true": "must be an object, not a boolean",
    '"recorded"': "must be an object, not a string",
    '{"a": ' + "[" * 3000 + "]" * 3000 + "}": "is nested too deeply",
    '{"a": ' + "9" * 5000 + "}": "cannot be decoded",
    '{"a": 1e400}': "cannot be decoded",
}
#: Documents that only a database without a JSON type stores.
BROKEN = {'{"a": ': "cannot be decoded", "": "cannot be decoded", "[1, NaN]": "NaN is not JSON"}


class Never(Worker):
    """Records whether it was called."""

    called: list[int] = []  # noqa: RUF012

    def __init__(self) -> None:
        self.called.append(0)

    async def process(self, job: Job) -> None:
        self.called.append(job.id)

    def backoff(self, job: Job) -> float:
        self.called.append(-job.id)
        return 0


class Outcome(Worker, max_attempts=30):
    """Corrupts its own row, and ends as its args say."""

    async def process(self, job: Job) -> Any:
        async with Oban.get_instance("spoilt").engine.begin() as connection:
            for column in ("meta", "errors"):
                if (value := job.args.get(column)) is not None:
                    await put(connection, job.id, column, value)
        if "error" in job.args:
            raise ValueError(job.args["error"])
        return Record(5) if job.args["then"] == "record" else Snooze(3600)

    def backoff(self, job: Job) -> float:
        return 0


async def put(connection: Any, id_: int, column: str, value: str) -> None:
    """Write JSON into a column without any check."""
    json = "CAST(:value AS jsonb)" if connection.dialect.name == "postgresql" else ":value"
    await connection.execute(
        text(f"UPDATE oban_jobs SET {column} = {json} WHERE id = :id"), {"value": value, "id": id_}
    )


def bad(url: URL) -> dict[str, str]:
    return dict(BAD) if url.get_backend_name() == "postgresql" else {**BAD, **BROKEN}


@pytest.mark.parametrize("column", ["args", "meta"])
async def test_a_bad_document_fails_its_own_job_and_no_other(url: URL, column: str) -> None:
    documents = bad(url)
    Never.called.clear()
    async with Oban(url) as client:
        jobs = await client.enqueue_many([Never.new() for _ in documents])
        async with client.engine.begin() as connection:
            for job, document in zip(jobs, documents, strict=True):
                await put(connection, job.id, column, document)
    # One fetch claims all of them and the good job.
    async with Oban(url, queues={"default": 50}, **FAST_POLLING) as oban:
        await acknowledged(oban)
        for job, problem in zip(jobs, documents.values(), strict=True):
            row = await reaches(oban, job, JobState.RETRYABLE)
            (entry,) = row.errors
            assert entry["error"].startswith(f"InvalidJob: {column} ")
            assert problem in entry["error"]
            assert "Traceback" not in entry["error"]
    assert Never.called == []


async def test_a_bad_document_can_be_read_and_managed(url: URL) -> None:
    documents = bad(url)
    async with Oban(url) as oban:
        jobs = await oban.enqueue_many([Never.new(schedule_in=60) for _ in documents])
        async with oban.engine.begin() as connection:
            for job, document in zip(jobs, documents, strict=True):
                for column in ("args", "meta"):
                    await put(connection, job.id, column, document)
        for row in await oban.list_jobs():
            assert isinstance(row.args, Undecodable) or not isinstance(row.args, dict)
        assert await oban.cancel_many_jobs(jobs) == len(jobs)
        assert await oban.retry_many_jobs(jobs) == len(jobs)
        for updated in await oban.update_many_jobs(jobs, lambda job: {"args": {}, "meta": {"of": job.id}}):
            assert (updated.state, updated.args, updated.meta) == ("available", {}, {"of": updated.id})


@pytest.mark.parametrize("then", ["record", "snooze"])
async def test_an_outcome_is_stored_if_meta_is_not_an_object(url: URL, then: str) -> None:
    documents = bad(url)
    async with Oban(url, queues={"default": 50}, name="spoilt", **FAST_POLLING) as oban:
        jobs = await oban.enqueue_many([Outcome.new({"meta": it, "then": then}) for it in documents])
        state = JobState.COMPLETED if then == "record" else JobState.SCHEDULED
        expected = {"recorded": True, "return": 5} if then == "record" else {"snoozed": 1}
        for job, document in zip(jobs, documents, strict=True):
            row = await reaches(oban, job, state)
            if document.startswith("{") and not isinstance(row.meta, dict):
                # A value that the database can read stays.
                assert isinstance(row.meta, Undecodable)
            else:
                assert row.meta == expected
            assert row.errors == []


async def test_an_error_is_stored_if_errors_is_not_a_list(url: URL) -> None:
    documents = bad(url)
    del documents["[1]"]
    async with Oban(url, queues={"default": 50}, name="spoilt", **FAST_POLLING) as oban:
        jobs = await oban.enqueue_many(
            [Outcome.new({"errors": it, "error": "x"}, max_attempts=1) for it in documents]
        )
        for job in jobs:
            row = await reaches(oban, job, JobState.DISCARDED)
            (entry,) = row.errors
            assert entry["error"].endswith("ValueError: x")


async def test_the_error_of_a_cancelled_run_is_stored_if_errors_is_not_a_list(url: URL) -> None:
    async with Oban(url, queues={"default": 5}, name="spoilt", **FAST_POLLING) as oban:

        class CancelsItself(Worker):
            async def process(self, job: Job) -> None:
                await oban.cancel_job(job.id)
                async with oban.engine.begin() as connection:
                    await put(connection, job.id, "errors", job.args["errors"])
                raise ValueError("late")

        jobs = await oban.enqueue_many([CancelsItself.new({"errors": it}) for it in ("7", '{"a": 1}', "[3]")])

        async def cancelled(job: Job) -> bool:
            errors = (await row_of(oban, job)).errors
            return isinstance(errors, list) and bool(errors) and isinstance(errors[-1], dict)

        for job in jobs:
            await eventually(functools.partial(cancelled, job))
            row = await row_of(oban, job)
            assert row.state is JobState.CANCELLED
            assert row.errors[-1]["error"].endswith("ValueError: late")
        kept: list[Any] = list((await row_of(oban, jobs[2])).errors)
        assert kept[0] == 3


@pytest.mark.parametrize("message", ["🎉" * 300_000, '\x01"' * 500_000], ids=["emoji", "escaped"])
async def test_the_errors_of_a_job_stop_growing(url: URL, message: str) -> None:
    class Fails(Worker, max_attempts=30, name="fails for ever"):
        async def process(self, job: Job) -> None:
            raise ValueError(f"attempt {job.attempt}: {message}")

        def backoff(self, job: Job) -> float:
            return 0

    async with Oban(url, queues={"default": 5}, **FAST_POLLING) as oban:
        row = await reaches(oban, await oban.enqueue(Fails.new()), JobState.DISCARDED, timeout=30)
        async with oban.engine.connect() as connection:
            size = await connection.scalar(text("SELECT length(CAST(errors AS text)) FROM oban_jobs"))
    assert [entry["attempt"] for entry in row.errors] == [*range(1, 11), *range(21, 31)]
    assert all(f"attempt {entry['attempt']}: " in entry["error"] for entry in row.errors)
    assert 20 * 2000 < size < 256 * 1024


@pytest.mark.parametrize("length", [19, 20, 21, 100])
async def test_a_list_of_errors_that_is_already_too_long_does_not_grow(url: URL, length: int) -> None:
    class Once(Worker, name="fails once", max_attempts=1):
        async def process(self, job: Job) -> None:
            raise ValueError("the last")

    async with Oban(url, queues={"default": 5}, **FAST_POLLING) as oban:
        entries = "[" + ", ".join(f'{{"n": {n}}}' for n in range(length)) + "]"
        job = await oban.enqueue(Once.new(queue="later"))
        async with oban.engine.begin() as connection:
            await put(connection, job.id, "errors", entries)
        await oban.update_job(job, {"queue": "default"})
        row = await reaches(oban, job, JobState.DISCARDED)
    assert len(row.errors) <= max(20, length)
    assert [entry["n"] for entry in row.errors[:10]] == list(range(10))
    assert row.errors[-2]["n"] == length - 1
    assert row.errors[-1]["error"].endswith("ValueError: the last")
