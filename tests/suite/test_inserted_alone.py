"""A single job is inserted by another statement than many jobs, and is stored in the same way."""

from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
from sqlalchemy import text

from oban import Job, Oban, Worker
from oban.errors import EncodingError
from tests.support.statements import recorded


class Anything(Worker, name="tests.anything", queue="some"):
    """Its jobs are never run."""

    async def process(self, job: Job) -> None: ...


GIVEN: dict[str, Any] = {
    "queue": "other",
    "max_attempts": 3,
    "priority": 9,
    "meta": {"süß": [1, {"deep": None}], "n": 2**60, "f": 1e-7, "text": "'; \\ \" % :x ?"},
    "tags": ["b", "a", "%s", ":x", 'quo"te'],
    "scheduled_at": datetime(2100, 1, 1, tzinfo=UTC),
}
COMBINATIONS = [
    {name: GIVEN[name] for name, wanted in zip(GIVEN, flags, strict=True) if wanted}
    for flags in product([False, True], repeat=len(GIVEN))
]
#: Columns read without their types, which could read equal values from different strings.
RAW = text("SELECT * FROM oban_jobs ORDER BY id")
#: The only difference: on SQLite, the white space in the JSON of `tags`.
OWN = {"id", "inserted_at", "scheduled_at", "tags"}


def shown(job: Job) -> dict[str, Any]:
    names = ("state", "queue", "worker", "args", "meta", "tags", "max_attempts", "priority", "attempt")
    timed = {"scheduled_at": job.scheduled_at} if job.state == "scheduled" else {}
    return {name: getattr(job, name) for name in names} | timed


async def test_a_single_job_is_stored_like_one_of_many_whatever_its_fields(oban: Oban) -> None:
    def make() -> list[Job]:
        return [Anything.new({"n": n}, **fields) for n, fields in enumerate(COMBINATIONS)]

    alone = [await oban.enqueue(job) for job in make()]
    # A statement that was run before takes another path the second time.
    again = [await oban.enqueue(job) for job in make()]
    together = await oban.enqueue_many(make())
    assert [shown(job) for job in alone] == [shown(job) for job in together]
    assert [shown(job) for job in again] == [shown(job) for job in together]

    async with oban.engine.connect() as connection:
        rows = [dict(each) for each in (await connection.execute(RAW)).mappings()]
    for job, row, other in zip([*alone, *again], rows, rows[-len(together) :] * 2, strict=False):
        shared = row.keys() - OWN
        assert {key: row[key] for key in shared} == {key: other[key] for key in shared}
        found = await oban.get_job(row["id"])
        assert found is not None
        assert shown(found) == shown(job)
        assert (found.inserted_at, found.scheduled_at) == (job.inserted_at, job.scheduled_at)
        assert job.state == "scheduled" or job.scheduled_at == job.inserted_at


async def test_a_document_that_was_changed_in_place_is_checked_again_before_it_is_stored(oban: Oban) -> None:
    job = Anything.new({"n": 1}, meta={"m": 1}, tags=["a"])
    job.args["when"] = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(EncodingError, match=r"args.*when.*datetime"):
        await oban.enqueue(job)
    job.args["when"], job.meta["nul"] = (1, 2), "a\0b"
    with pytest.raises(EncodingError, match=r"meta.*nul.*NUL"):
        await oban.enqueue(job)
    job.meta["nul"] = "ab"
    job.tags.append(" B ")
    assert (await oban.enqueue(job)).id
    (row,) = await oban.list_jobs()
    assert (row.args, row.meta, row.tags) == ({"n": 1, "when": [1, 2]}, {"m": 1, "nul": "ab"}, ["a", "b"])


async def test_jobs_of_every_worker_and_queue_share_one_statement(oban: Oban) -> None:
    with recorded(oban.engine) as statements:
        for number in range(3):
            await oban.enqueue(Job(worker=f"tests.{number}", queue=f"queue-{number}", args={"n": number}))
    inserts = {sql for sql in statements if sql.startswith("INSERT INTO oban_jobs")}
    assert len(inserts) == 1
