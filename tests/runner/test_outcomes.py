"""Each way of ending a run is stored in the row."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, select

from oban import Cancel, Job, JobState, Oban, Record, Snooze, Worker
from tests.support.jobs import reaches, row_of
from tests.support.waiting import eventually


class Returns(Worker):
    """Returns the value that the test has set."""

    result: Any = None

    async def process(self, job: Job) -> Any:
        return self.result


class ReturnsInThread(Worker):
    def process(self, job: Job) -> Any:
        return Returns.result


class Raises(Worker):
    """Raises the exception that the test has set."""

    error: BaseException = ValueError("bad")

    async def process(self, job: Job) -> None:
        raise self.error


class RaisesInThread(Worker):
    def process(self, job: Job) -> None:
        raise Raises.error


class Persistent(Worker, max_attempts=3):
    async def process(self, job: Job) -> None:
        raise ValueError(f"bad {job.attempt}")

    def backoff(self, job: Job) -> float:
        return 0


@pytest.fixture(params=[Returns, ReturnsInThread], ids=["async", "thread"])
def returning(request: pytest.FixtureRequest) -> type[Worker]:
    worker: type[Worker] = request.param
    return worker


@pytest.fixture(params=[Raises, RaisesInThread], ids=["async", "thread"])
def raising(request: pytest.FixtureRequest) -> type[Worker]:
    worker: type[Worker] = request.param
    return worker


async def test_a_run_that_returns_completes_the_job(
    url: URL, returning: type[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Also a value that is not an outcome and could not be stored.
    monkeypatch.setattr(Returns, "result", object())
    async with Oban(url, node="here", queues={"default": 5}) as oban:
        job = await oban.enqueue(returning.new({"a": 1}))
        row = await reaches(oban, job, JobState.COMPLETED)
    assert (row.attempt, row.errors, row.meta, row.args) == (1, [], {}, {"a": 1})
    assert row.attempted_by[0] == "here"
    assert len(row.attempted_by) == 2
    assert row.attempted_at is not None
    assert row.completed_at is not None
    assert row.inserted_at <= row.attempted_at <= row.completed_at
    assert (row.cancelled_at, row.discarded_at) == (None, None)


async def test_a_returned_cancel_ends_the_job_with_its_reason(
    url: URL, returning: type[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Returns, "result", Cancel("no such account"))
    async with Oban(url, queues={"default": 5}) as oban:
        job = await oban.enqueue(returning.new())
        row = await reaches(oban, job, JobState.CANCELLED)
    assert [(entry["attempt"], entry["error"]) for entry in row.errors] == [(1, "no such account")]
    assert row.cancelled_at is not None
    assert row.completed_at is None


async def test_a_snooze_gives_the_attempt_back_and_is_counted(
    url: URL, returning: type[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Returns, "result", Snooze(3600))
    async with Oban(url, queues={"default": 5}) as oban:
        job = await oban.enqueue(returning.new(meta={"kept": True}, max_attempts=1))
        row = await reaches(oban, job, JobState.SCHEDULED)
        assert (row.attempt, row.meta, row.errors) == (0, {"kept": True, "snoozed": 1}, [])
        away = row.scheduled_at - datetime.now(UTC)
        assert timedelta(minutes=59) < away < timedelta(minutes=61)

        monkeypatch.setattr(Returns, "result", Snooze(timedelta(hours=2)))
        await oban.update_job(job, {"schedule_in": 0})

        async def snoozed_again() -> bool:
            return bool((await row_of(oban, job)).meta["snoozed"] == 2)

        await eventually(snoozed_again)
        row = await row_of(oban, job)
    assert row.state is JobState.SCHEDULED
    assert (row.attempt, row.meta, row.errors) == (0, {"kept": True, "snoozed": 2}, [])
    assert row.scheduled_at - datetime.now(UTC) > timedelta(minutes=119)


#: Keys and values that a merge of JSON could change, and an old count that the worker has copied.
NOTES: dict[str, Any] = {
    "replaced": {"new": None},
    "none": None,
    "list": [1, {"a": None}],
    "numbers": [2**63, 1e22, 1.5],
    'a "quoted" key.$[0]': "ä",
    "": "",
    "snoozed": 99,
}


@pytest.mark.parametrize("worker", [Returns, ReturnsInThread, Raises, RaisesInThread])
async def test_a_snooze_adds_to_the_meta(
    url: URL, worker: type[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    snooze = Snooze(3600, meta=NOTES)
    monkeypatch.setattr(Returns, "result", snooze)
    monkeypatch.setattr(Raises, "error", snooze)
    before = {"kept": {"a": None}, "replaced": {"old": 1}}
    async with Oban(url, queues={"default": 5}) as oban:
        jobs = await oban.enqueue_many(worker.new(meta=before), worker.new(), worker.new(meta={"none": 1}))
        rows = [await reaches(oban, job, JobState.SCHEDULED) for job in jobs]
        assert rows[0].meta == {**before, **NOTES, "snoozed": 1}
        assert rows[1].meta == rows[2].meta == {**NOTES, "snoozed": 1}
        assert {row.attempt for row in rows} == {0}
        await oban.update_job(jobs[0], {"schedule_in": 0})

        async def snoozed_again() -> bool:
            return bool((await row_of(oban, jobs[0])).meta["snoozed"] == 2)

        await eventually(snoozed_again)


async def test_a_snooze_with_meta_that_cannot_be_stored_fails_the_attempt(url: URL) -> None:
    class Spoils(Worker):
        async def process(self, job: Job) -> Snooze:
            snooze = Snooze(60, meta={"list": []})
            assert snooze.meta is not None
            snooze.meta["list"].append(snooze)
            return snooze

    async with Oban(url, queues={"default": 5}) as oban:
        row = await reaches(oban, await oban.enqueue(Spoils.new()), JobState.RETRYABLE)
    assert 'meta["list"][0] is not JSON: Snooze' in row.errors[0]["error"]
    assert row.meta == {}


async def test_a_recorded_value_is_in_the_meta(url: URL) -> None:
    values: list[Any] = [{"lines": 3, "of": ["ä", None]}, "text", 0, None, [], 1.5, False, "'", 2**63]

    class RecordsItsValue(Worker):
        async def process(self, job: Job) -> Record:
            return Record(values[job.args["n"]])

    async with Oban(url, queues={"default": 5}) as oban:
        jobs = [RecordsItsValue.new({"n": n}, meta={"kept": True}) for n in range(len(values))]
        rows = [await reaches(oban, job, JobState.COMPLETED) for job in await oban.enqueue_many(jobs)]
    for row, value in zip(rows, values, strict=True):
        assert row.meta == {"kept": True, "recorded": True, "return": value}


async def test_a_recorded_value_can_be_searched_for(
    url: URL, returning: type[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Returns, "result", Record({"lines": 3}))
    async with Oban(url, queues={"default": 5}) as oban:
        job = await oban.enqueue(returning.new())
        other = await oban.enqueue(returning.new(schedule_in=3600))
        await reaches(oban, job, JobState.COMPLETED)
        found = await oban.list_jobs(select(Job).where(Job.meta["return"]["lines"].as_integer() == 3))
        assert [row.id for row in found] == [job.id]
        recorded = await oban.list_jobs(select(Job).where(Job.meta["recorded"].as_boolean()))
        assert [row.id for row in recorded] == [job.id]
        nothing = await oban.list_jobs(select(Job).where(Job.meta["return"]["lines"].as_integer() == 4))
        assert nothing == []
    assert other.meta == {}


async def test_a_value_that_cannot_be_recorded_is_a_failed_attempt(url: URL) -> None:
    class RecordsASet(Worker):
        async def process(self, job: Job) -> Record:
            return Record({"a": {1, 2}})

    async with Oban(url, queues={"default": 5}) as oban:
        job = await oban.enqueue(RecordsASet.new())
        row = await reaches(oban, job, JobState.RETRYABLE)
    assert 'Record["a"] is not JSON: set' in row.errors[0]["error"]


async def test_an_exception_makes_the_job_retryable_after_the_default_backoff(
    url: URL, raising: type[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Raises, "error", ValueError("bad"))
    async with Oban(url, queues={"default": 5}) as oban:
        job = await oban.enqueue(raising.new())
        row = await reaches(oban, job, JobState.RETRYABLE)
    assert (row.attempt, row.max_attempts) == (1, 20)
    (entry,) = row.errors
    assert entry["attempt"] == 1
    assert entry["error"].startswith("Traceback")
    assert entry["error"].endswith("ValueError: bad")
    at = datetime.fromisoformat(entry["at"])
    assert at.utcoffset() == timedelta(0)
    # 15 + 2^1 seconds, and up to a tenth of jitter.
    assert timedelta(seconds=16.9) <= row.scheduled_at - at <= timedelta(seconds=18.8)
    assert (row.completed_at, row.cancelled_at, row.discarded_at) == (None, None, None)


async def test_a_job_is_discarded_when_its_attempts_are_used_up(url: URL) -> None:
    async with Oban(url, queues={"default": 5}) as oban:
        job = await oban.enqueue(Persistent.new())
        row = await reaches(oban, job, JobState.DISCARDED)
    assert (row.attempt, row.max_attempts) == (3, 3)
    assert [entry["attempt"] for entry in row.errors] == [1, 2, 3]
    assert [entry["error"].rpartition("\n")[2] for entry in row.errors] == [
        f"ValueError: bad {attempt}" for attempt in (1, 2, 3)
    ]
    assert row.discarded_at is not None
    assert row.completed_at is None


async def test_a_huge_error_message_is_cut(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Raises, "error", ValueError("start" + "x" * 5_000_000 + "end"))
    async with Oban(url, queues={"default": 5}) as oban:
        job = await oban.enqueue(Raises.new())
        row = await reaches(oban, job, JobState.RETRYABLE)
    text = row.errors[0]["error"]
    assert len(text) < 10_000
    assert "ValueError: start" in text
    assert "characters left out" in text
    assert text.endswith("end")


async def test_the_reason_of_a_cancel_is_made_storable(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Returns, "result", Cancel("a\x00b\ud800" + "x" * 100_000))
    async with Oban(url, queues={"default": 5}) as oban:
        job = await oban.enqueue(Returns.new())
        row = await reaches(oban, job, JobState.CANCELLED)
    assert row.errors[0]["error"].startswith("a\ufffdb?x")
    assert len(row.errors[0]["error"]) < 10_000
