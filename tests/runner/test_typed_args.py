"""Workers get objects of the declared type in every executor, and an error names args that do not fit."""

import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, field_validator
from sqlalchemy import URL, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from oban import Job, JobState, Oban, Record, Worker
from tests.support.jobs import reaches
from tests.support.options import FAST_POLLING

pytestmark = pytest.mark.either_driver


@dataclass
class Meeting:
    at: datetime
    lasts: timedelta = timedelta(hours=1)


class Mail(TypedDict):
    to: str


class Order(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def check(cls, value: int) -> int:
        if value == 13:
            raise KeyError("unlucky")
        return value


class OnLoop(Worker[Meeting]):
    async def process(self, job: Job, args: Meeting) -> Record:
        return Record([(args.at + args.lasts).isoformat(), type(job.args).__name__, job.args["at"]])


class InThread(Worker[Order]):
    def process(self, job: Job, *, args: Order) -> Record:
        return Record([args.number, threading.current_thread() is threading.main_thread()])

    def backoff(self, job: Job) -> float:
        return 3600 if job.args["number"] == "many" else self.args_of(job).number


class InProcess(Worker[Mail], executor="process"):
    def process(self, job: Job, args: Mail) -> Record:
        return Record([args["to"], os.getpid()])


class InItsTransaction(Worker[Order]):
    async def process(self, job: Job, args: Order, session: AsyncSession) -> None:
        session.add(Untyped.new({"copied": args.number}))


class InItsThread(Worker[Order]):
    def process(self, job: Job, args: Order, session: Session) -> None:
        session.add(Untyped.new({"copied": args.number}))


class Untyped(Worker):
    async def process(self, job: Job, args: dict[str, Any]) -> Record:
        return Record([args, args is job.args])


class Careless(Worker[Mail]):
    """Declares the type of its args, but its `process` does not take them."""

    async def process(self, job: Job) -> Record:
        return Record(job.args)


async def returned(oban: Oban, job: Job) -> Any:
    return (await reaches(oban, await oban.enqueue(job), JobState.COMPLETED)).meta["return"]


@pytest.fixture
async def oban(url: URL) -> Any:
    async with Oban(url, queues={"default": 5}, **FAST_POLLING) as oban:
        yield oban


async def test_the_object_comes_back_in_every_executor(oban: Oban) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert await returned(oban, OnLoop.new(Meeting(at))) == [
        "2026-01-01T01:00:00+00:00",
        "dict",
        "2026-01-01T00:00:00Z",
    ]
    assert await returned(oban, InThread.new(Order(number=7))) == [7, False]
    to, pid = await returned(oban, InProcess.new({"to": "a@b.c"}))
    assert (to, pid != os.getpid()) == ("a@b.c", True)


async def test_a_parameter_args_of_an_untyped_worker_is_the_dict(oban: Oban) -> None:
    assert await returned(oban, Untyped.new({"a": 1})) == [{"a": 1}, True]


@pytest.mark.parametrize("cls", [InItsTransaction, InItsThread])
async def test_args_and_a_session_can_be_combined(oban: Oban, cls: type[Worker[Order]]) -> None:
    await reaches(oban, await oban.enqueue(cls.new(Order(number=7))), JobState.COMPLETED)
    misfit = await reaches(oban, await oban.enqueue(Job(worker=cls.worker_name)), JobState.RETRYABLE)
    assert misfit.errors[-1]["error"].endswith("do not fit Order: number: Field required")
    copies = await oban.list_jobs(select(Job).where(Job.worker == Untyped.worker_name))
    assert [copy.args for copy in copies] == [{"copied": 7}]


async def test_args_that_do_not_fit_fail_the_attempt_with_the_field_and_the_fault(oban: Oban) -> None:
    stored: list[tuple[type[Worker[Any]], dict[str, Any], str]] = [
        (OnLoop, {"at": "soon"}, "OnLoop do not fit Meeting: at: Input should be a valid datetime"),
        (InThread, {"number": "many"}, "InThread do not fit Order: number: Input should be a valid integer"),
        (InProcess, {}, "InProcess do not fit Mail: to: Field required"),
    ]
    for cls, args, problem in stored:
        # As another version or another language could store them.
        job = await oban.enqueue(Job(worker=cls.worker_name, args=args))
        row = await reaches(oban, job, JobState.RETRYABLE)
        assert row.attempt == 1
        (entry,) = row.errors
        assert str(entry["error"]).startswith(f"InvalidJob: args of {__name__}.{problem}")
        assert "Traceback" not in entry["error"]


async def test_a_job_runs_when_its_args_fit_again(oban: Oban) -> None:
    job = await oban.enqueue(Job(worker=OnLoop.worker_name, args={"at": "soon"}))
    await reaches(oban, job, JobState.RETRYABLE)
    await oban.update_job(
        job, {"args": {"at": "2026-01-01T00:00:00Z", "lasts": "PT1M", "of a later version": 1}}
    )
    await oban.retry_job(job)
    assert (await reaches(oban, job, JobState.COMPLETED)).meta["return"][0] == "2026-01-01T00:01:00+00:00"


async def test_the_error_of_a_validator_is_stored_with_its_traceback(oban: Oban) -> None:
    job = await oban.enqueue(Job(worker=InThread.worker_name, args={"number": 13}))
    row = await reaches(oban, job, JobState.RETRYABLE)
    assert "in check" in row.errors[-1]["error"]
    assert row.errors[-1]["error"].endswith("KeyError: 'unlucky'")


def test_an_integer_beyond_64_bits_that_another_language_has_stored_is_parsed() -> None:
    job = InThread.new(Order(number=1))
    job.__dict__["args"] = {"number": 2**80 + 1}
    assert InThread.args_of(job).number == 2**80 + 1


async def test_a_worker_that_does_not_take_its_args_runs_whatever_is_stored(oban: Oban) -> None:
    assert await returned(oban, Job(worker=Careless.worker_name, args={"other": 1})) == {"other": 1}
