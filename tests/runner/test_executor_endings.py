"""Whatever a job does, it has one outcome, on the event loop and in threads."""

import asyncio
import contextlib
import gc
import logging
import math
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import CallNext, Cancel, Job, JobState, Oban, Record, Snooze, Worker
from tests.support.jobs import acknowledged, row_of
from tests.support.options import FAST_POLLING
from tests.support.waiting import eventually

pytestmark = pytest.mark.execution


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")

    __repr__ = __str__


class EndsWhenPrinted(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text, and no node")

    __repr__ = __str__


class Shy(type):
    def __getattribute__(cls, name: str) -> object:
        if name in ("__name__", "__qualname__", "__module__"):
            raise KeyboardInterrupt
        return super().__getattribute__(name)


class Nameless(Exception, metaclass=Shy):
    pass


class Disguised(Exception):
    @property
    def __class__(self) -> Any:
        raise SystemExit("not my class")

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise SystemExit("not my class")


class Secretive:
    """A result that raises when it is inspected."""

    @property
    def __class__(self) -> Any:
        raise ValueError("do not look")

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise ValueError("do not look")


class BadReason:
    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


def raises(error: BaseException) -> Callable[[Job], Any]:
    def act(job: Job) -> Any:
        # A new instance, as one that is raised repeatedly collects the frames of each time.
        raise error.with_traceback(None)

    return act


def returns(result: Any) -> Callable[[Job], Any]:
    return lambda job: result


def recurses(job: Job) -> Any:
    return recurses(job)


def from_a_cause(job: Job) -> None:
    try:
        raise KeyError("the cause")
    except KeyError as error:
        raise ValueError("the effect") from error


def in_a_circle(job: Job) -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def spoils_its_record(job: Job) -> Record:
    record = Record({"a": [1]})
    record.value["a"].append(math.nan)
    return record


def spoils_its_job(job: Job) -> None:
    """Remove every attribute that the runner could read later."""
    for name in list(job.__dict__):
        if not name.startswith("_"):
            del job.__dict__[name]
    raise ValueError("without a job")


def spoils_its_meta(job: Job) -> Snooze:
    job.__dict__["meta"] = None
    return Snooze(3600)


def exits(job: Job) -> None:
    sys.exit("enough")


def generates(job: Job) -> Iterator[int]:
    yield 1


def of_many(count: int) -> BaseException:
    return ExceptionGroup("many", [ValueError(str(n)) for n in range(count)])


class Ending(NamedTuple):
    act: Callable[[Job], Any]
    state: JobState
    #: A part of its one error, or None if there must be none.
    error: str | None = None
    max_attempts: int = 20


FAILED, ENDED, GONE = JobState.RETRYABLE, JobState.COMPLETED, JobState.CANCELLED
HUGE = ValueError("begin" + "x" * 10_000_000 + "end")

ENDINGS = {
    # Errors that are raised.
    "exception": Ending(raises(ValueError("bad")), FAILED, "ValueError: bad"),
    "last attempt": Ending(raises(ValueError("bad")), JobState.DISCARDED, "ValueError: bad", 1),
    "no message": Ending(raises(ValueError()), FAILED, "ValueError"),
    "system exit": Ending(raises(SystemExit(3)), FAILED, "SystemExit: 3"),
    "sys.exit": Ending(exits, FAILED, "SystemExit: enough"),
    "keyboard interrupt": Ending(raises(KeyboardInterrupt()), FAILED, "KeyboardInterrupt"),
    "generator exit": Ending(raises(GeneratorExit()), FAILED, "GeneratorExit"),
    "cancelled error": Ending(raises(asyncio.CancelledError()), FAILED, "CancelledError"),
    "stop iteration": Ending(raises(StopIteration(1)), FAILED, "StopIteration"),
    "stop async iteration": Ending(raises(StopAsyncIteration()), FAILED, "StopAsyncIteration"),
    "base exception": Ending(raises(BaseException("base")), FAILED, "BaseException: base"),
    "group": Ending(raises(of_many(2)), FAILED, "many (2 sub-exceptions)"),
    "large group": Ending(raises(of_many(5000)), FAILED, "many (5000 sub-exceptions)"),
    "base group": Ending(
        raises(BaseExceptionGroup("ends", [SystemExit(1), KeyboardInterrupt()])), FAILED, "BaseExceptionGroup"
    ),
    "cause": Ending(from_a_cause, FAILED, "KeyError: 'the cause'"),
    "causes in a circle": Ending(in_a_circle, FAILED, "ValueError: first"),
    "memory error": Ending(raises(MemoryError()), FAILED, "MemoryError"),
    "recursion": Ending(recurses, FAILED, "RecursionError"),
    "timeout error": Ending(raises(TimeoutError("own")), FAILED, "TimeoutError: own"),
    "unprintable": Ending(raises(Unprintable()), FAILED, "Unprintable"),
    "ends when printed": Ending(raises(EndsWhenPrinted()), FAILED, "EndsWhenPrinted"),
    "nameless": Ending(raises(Nameless("x")), FAILED, "Nameless"),
    "disguised": Ending(raises(Disguised("x")), FAILED, "Disguised"),
    "odd name": Ending(raises(type("Ünï\n\"'🎉", (Exception,), {})("x")), FAILED, "Ünï\n\"'🎉: x"),
    "10 MB": Ending(raises(HUGE), FAILED, "ValueError: begin"),
    "NUL": Ending(raises(ValueError("a\x00b")), FAILED, "ValueError: a\ufffdb"),
    "lone surrogate": Ending(raises(ValueError("a\ud800b")), FAILED, "ValueError: a?b"),
    "quotes": Ending(raises(ValueError("🎉 'a' \"b\" \\ :c %s")), FAILED, "🎉 'a' \"b\" \\ :c %s"),
    "assertion": Ending(raises(AssertionError()), FAILED, "AssertionError"),
    "no method": Ending(raises(NotImplementedError()), FAILED, "NotImplementedError"),
    # Results.
    "nothing": Ending(returns(None), ENDED),
    "any object": Ending(returns(object()), ENDED),
    "an outcome's class": Ending(
        returns(Snooze), FAILED, "TypeError: process returned the class Snooze: return"
    ),
    "another class": Ending(returns(int), ENDED),
    "an error": Ending(returns(ValueError("returned")), ENDED),
    "not implemented": Ending(returns(NotImplemented), ENDED),
    "generator": Ending(generates, FAILED, "TypeError: process returned a generator, which nobody runs"),
    "text": Ending(returns("a\x00\ud800"), ENDED),
    "secretive": Ending(returns(Secretive()), FAILED, "ValueError: do not look"),
    "record": Ending(returns(Record({"a": [1, None]})), ENDED),
    "record of a set": Ending(lambda job: Record({1}), FAILED, "Record is not JSON: set"),
    "record of nan": Ending(lambda job: Record(math.nan), FAILED, "Record is nan"),
    "record of a long integer": Ending(lambda job: Record(2**64), FAILED, "more than 64 bits"),
    "huge record": Ending(lambda job: Record("x" * 5_000_000), FAILED, "bytes of JSON; at most"),
    "spoilt record": Ending(spoils_its_record, FAILED, 'Record["a"][1] is nan'),
    "cancel": Ending(returns(Cancel("why")), GONE, "why"),
    "cancel without a reason": Ending(returns(Cancel()), GONE, "cancelled by its worker"),
    "cancel with a number": Ending(returns(Cancel(5)), GONE, "5"),  # type: ignore[arg-type]
    "cancel with nothing": Ending(returns(Cancel(None)), GONE, "None"),  # type: ignore[arg-type]
    "cancel with an unprintable": Ending(returns(Cancel(BadReason())), GONE, "not be printed"),  # type: ignore[arg-type]
    "cancel with NUL": Ending(returns(Cancel("a\x00\ud800")), GONE, "a\ufffd?"),
    "snooze": Ending(returns(Snooze(3600)), JobState.SCHEDULED),
    "snooze below zero": Ending(lambda job: Snooze(-1), FAILED, "must not be negative"),
    "snooze for ever": Ending(lambda job: Snooze(math.inf), FAILED, "must be finite"),
    # Changes to the job.
    "spoilt job": Ending(spoils_its_job, FAILED, "ValueError: without a job"),
    "spoilt meta": Ending(spoils_its_meta, JobState.SCHEDULED),
}


class OnLoop(Worker):
    async def process(self, job: Job) -> Any:
        return ENDINGS[job.args["ending"]].act(job)


class InThread(Worker):
    def process(self, job: Job) -> Any:
        return ENDINGS[job.args["ending"]].act(job)


@pytest.fixture
def lines() -> Iterator[dict[int, list[str]]]:
    """The first lines of the records about attempts that have ended, by the id of the job.

    pytest does not see these records: pytest-xdist cannot send lone surrogates.
    """
    found: dict[int, list[str]] = {}
    logger, formatter = logging.getLogger("oban.executor"), logging.Formatter()

    def take(record: logging.LogRecord) -> bool:
        # With its traceback, as every handler does.
        shown = formatter.format(record)
        if record.__dict__["state"] != "executing":
            found.setdefault(record.__dict__["job_id"], []).append(shown.splitlines()[0])
        return False

    logger.addFilter(take)
    yield found
    logger.removeFilter(take)


@pytest.mark.parametrize("worker", [OnLoop, InThread], ids=["async", "thread"])
async def test_every_ending_is_one_outcome_and_the_node_continues(
    url: URL, worker: type[Worker], lines: dict[int, list[str]]
) -> None:
    async with Oban(url, queues={"default": 100}, **FAST_POLLING) as oban:
        jobs = await oban.enqueue_many(
            [worker.new({"ending": name}, max_attempts=it.max_attempts) for name, it in ENDINGS.items()]
        )
        await eventually(lambda: over(oban))
        for job, (name, ending) in zip(jobs, ENDINGS.items(), strict=True):
            row = await row_of(oban, job)
            shown = f"{name}: {row.state}, {str(row.errors)[-2000:]}"
            assert row.state is ending.state, shown
            assert len(row.errors) == (ending.error is not None), shown
            if ending.error is not None:
                assert ending.error in row.errors[0]["error"], shown
                assert row.errors[0]["attempt"] == 1
            assert row.attempt == (0 if row.state is JobState.SCHEDULED else 1), shown
            if row.state in (FAILED, JobState.DISCARDED):
                assert len(lines[job.id]) == 1, (name, lines[job.id])
                line = lines[job.id][0]
                assert "failed, attempt 1 of" in line
                assert len(line) < 1000, name
        await acknowledged(oban)


async def over(oban: Oban) -> bool:
    return all(row.state not in (JobState.AVAILABLE, JobState.EXECUTING) for row in await oban.list_jobs())


# -- workers that cannot be used ---------------------------------------------------------------


class Unmade(Worker):
    def __init__(self) -> None:
        raise SystemExit("not made")

    async def process(self, job: Job) -> None:
        return None


class SomethingElse(Worker):
    """Its instances are not workers."""

    def __new__(cls) -> Any:
        return 7

    async def process(self, job: Job) -> None:
        return None


class ForgetsToAwait(Worker):
    async def process(self, job: Job) -> Any:
        return self.work()

    async def work(self) -> None: ...


class CancelsItsTask(Worker):
    async def process(self, job: Job) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)


class CancelsItsTaskAndReturns(Worker):
    async def process(self, job: Job) -> Record:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        task.cancel()
        return Record("done")


@pytest.mark.parametrize(
    ("worker", "error"),
    [
        (Unmade, "SystemExit: not made"),
        (SomethingElse, "AttributeError"),
        (ForgetsToAwait, "TypeError: process returned an object of the type coroutine that nobody awaits"),
        (CancelsItsTask, "CancelledError"),
    ],
)
async def test_a_worker_that_does_not_work_is_a_failed_attempt(
    sqlite_url: URL, worker: type[Worker], error: str
) -> None:
    async with Oban(sqlite_url, queues={"default": 5}, **FAST_POLLING) as oban:
        job = await oban.enqueue(worker.new())
        await eventually(lambda: over(oban))
        row = await row_of(oban, job)
    assert (row.state, row.attempt, len(row.errors)) == (JobState.RETRYABLE, 1, 1)
    assert error in row.errors[0]["error"]


async def test_a_job_that_cancels_its_own_task_and_returns_is_completed(sqlite_url: URL) -> None:
    async with Oban(sqlite_url, queues={"default": 5}, **FAST_POLLING) as oban:
        job = await oban.enqueue(CancelsItsTaskAndReturns.new())
        await eventually(lambda: over(oban))
        row = await row_of(oban, job)
    assert (row.state, row.meta["return"], row.errors) == (JobState.COMPLETED, "done", [])


@pytest.mark.parametrize("middleware", [[], ["async"], ["plain"], ["fails"]])
async def test_an_exception_is_freed_without_a_garbage_collection(
    sqlite_url: URL, middleware: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    # Its record would keep it.
    caplog.set_level(logging.CRITICAL, "oban.executor")
    raised: list[weakref.ref[BaseException]] = []

    class Failure(Exception):
        def __init__(self) -> None:
            raised.append(weakref.ref(self))

    async def passes(job: Job, call_next: CallNext) -> Any:
        return await call_next(job)

    def passes_plainly(job: Job, call_next: CallNext) -> Any:
        return call_next(job)

    async def fails(job: Job, call_next: CallNext) -> Any:
        raise Failure

    class OnLoop(Worker, max_attempts=1):
        async def process(self, job: Job) -> None:
            raise Failure

    class OnLoopWithTimeout(OnLoop, timeout=30):
        pass

    class OnLoopWithSession(Worker, max_attempts=1):
        async def process(self, job: Job, session: AsyncSession) -> None:
            raise Failure

    class InThread(Worker, max_attempts=1):
        def process(self, job: Job) -> None:
            raise Failure

    class InThreadWithSession(Worker, max_attempts=1):
        def process(self, job: Job, session: Session) -> None:
            raise Failure

    functions = {"async": passes, "plain": passes_plainly, "fails": fails}
    chain = [functions[name] for name in middleware]
    workers: list[type[Worker]] = [
        OnLoop,
        OnLoopWithTimeout,
        OnLoopWithSession,
        InThread,
        InThreadWithSession,
    ]
    gc.disable()
    try:
        async with Oban(sqlite_url, queues={"default": 1}, middleware=chain, **FAST_POLLING) as oban:
            await oban.enqueue_many(cls.new() for cls in workers)
            await oban.wait_until_empty(timeout=30)
        left = [failure() for failure in raised]
    finally:
        gc.enable()
    assert left == [None] * len(workers)
