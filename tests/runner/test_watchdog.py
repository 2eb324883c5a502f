"""A blocked event loop is reported while it is blocked, with the job that blocks it."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import URL

from oban import Job, JobState, Oban, Worker, clock
from oban.runner.execution.run import Run
from oban.runner.loop_watchdog import LoopWatchdog
from tests.support.internals import runner_of, thread_of, unanswered
from tests.support.jobs import reaches
from tests.support.options import BRIEF
from tests.support.waiting import Deadline, eventually, slowdown

pytestmark = pytest.mark.execution

#: Short, but longer than a thread usually waits for a processor.
THRESHOLD = 0.2


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    """Let the watchdog log, which it does not in other tests."""
    caplog.set_level(logging.WARNING, logger="oban.watchdog")


@asynccontextmanager
async def watching(runs: Callable[[], Iterable[Run]] = list) -> AsyncIterator[LoopWatchdog]:
    watchdog = LoopWatchdog(runs, threshold=THRESHOLD)
    watchdog.start()
    try:
        yield watchdog
    finally:
        watchdog.stop()


def warnings(caplog: pytest.LogCaptureFixture, of: str = "") -> list[str]:
    messages = [record.getMessage() for record in caplog.records if record.name == "oban.watchdog"]
    # On a busy machine a loop can also be blocked by something else.
    return [message for message in messages if of in message]


async def reports(caplog: pytest.LogCaptureFixture, number: int, of: str = "") -> list[str]:
    await eventually(lambda: len(warnings(caplog, of)) >= number)
    return warnings(caplog, of)


def block_until_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Block the loop until that was reported, and a while longer."""
    before, deadline = len(warnings(caplog, "has been")), Deadline(10)
    while len(warnings(caplog, "has been")) == before and not deadline.passed():
        block(0.01)
    block(2 * THRESHOLD)


def block(seconds: float) -> None:
    time.sleep(seconds)  # the line that blocks


async def test_a_job_that_blocks_the_loop_is_named_once_while_it_does_and_once_after(
    url: URL, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Blocks(Worker, name="tests.Blocks"):
        async def process(self, job: Job) -> None:
            block_until_reported(caplog)

    async with Oban(url, queues={"default": 2}, **BRIEF) as oban:
        runner_of(oban).watchdog.threshold = THRESHOLD
        # The thread reads the threshold when it starts.
        runner_of(oban).watchdog.stop()
        runner_of(oban).watchdog.start()
        job = await oban.enqueue(Blocks.new())
        await reaches(oban, job, JobState.COMPLETED)
        during, after = await reports(caplog, 2, "tests.Blocks")
        await asyncio.sleep(2 * THRESHOLD)
    assert f"by job {job.id} (tests.Blocks); nothing else can run" in during
    assert "in block_until_reported" in during
    assert "time.sleep(seconds)  # the line that blocks" in during
    assert after.endswith(f"by job {job.id} (tests.Blocks)")
    assert float(after.split(" for ")[1].split(" s")[0]) >= 2.5 * THRESHOLD
    assert len(warnings(caplog, "tests.Blocks")) == 2


async def test_code_outside_of_any_job_that_blocks_the_loop_is_reported_as_that(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with watching():
        await asyncio.sleep(THRESHOLD)
        block_until_reported(caplog)
        during, after = await reports(caplog, 2)
    assert "by no job, but code of the application or of a library" in during
    assert "in block_until_reported" in during
    assert "by no job" in after


async def test_a_callback_that_blocks_the_loop_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    async with watching():
        asyncio.get_running_loop().call_soon(block_until_reported, caplog)
        assert "by no job" in (await reports(caplog, 2))[0]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="before 3.12 the context of a task cannot be read")
async def test_a_task_that_a_job_created_belongs_to_the_job(
    url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    class Parent(Worker, name="tests.Parent"):
        async def process(self, job: Job) -> None:
            await asyncio.create_task(self.child())

        async def child(self) -> None:
            block_until_reported(caplog)

    async with Oban(url, queues={"default": 2}, **BRIEF) as oban, watching(runner_of(oban).queues.runs):
        job = await oban.enqueue(Parent.new())
        assert f"by job {job.id} (tests.Parent)" in (await reports(caplog, 2))[0]


async def test_each_blockage_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    async with watching():
        for number in (1, 2, 3):
            block_until_reported(caplog)
            await reports(caplog, 2 * number)
    assert ["has been" in text for text in warnings(caplog)] == [True, False] * 3


async def test_a_call_that_lets_no_other_thread_run_is_reported_when_it_returns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with watching():
        number = 30_000_000
        while not warnings(caplog, "sum(range(number))") and number < 10**10:
            await asyncio.sleep(THRESHOLD / 2)
            sum(range(number))  # holds the GIL
            number *= 2
        await reports(caplog, 1, "sum(range(number))")


async def test_a_loop_that_waits_for_its_turn_on_a_busy_machine_is_not_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with watching() as watchdog:
        with unanswered(watchdog):
            await asyncio.sleep(4 * THRESHOLD)
            assert clock.monotonic() - watchdog.answered_at > 2 * THRESHOLD
    assert warnings(caplog, "has been") == []


async def test_a_loop_that_is_busy_but_takes_turns_is_not_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with watching() as watchdog:
        end = time.monotonic() + 4 * THRESHOLD
        while time.monotonic() < end:
            block(THRESHOLD / 10)
            await asyncio.sleep(0)
        assert clock.monotonic() - watchdog.answered_at < THRESHOLD
    assert warnings(caplog) == []


async def test_the_last_sign_of_life_stands_still_while_the_loop_is_blocked() -> None:
    async with watching() as watchdog:
        before = watchdog.answered_at
        await eventually(lambda: watchdog.answered_at > before)
        before = watchdog.answered_at
        block(2 * THRESHOLD)
        assert watchdog.answered_at == before
        await eventually(lambda: watchdog.answered_at > before)


async def test_it_can_start_and_stop_repeatedly_and_leaves_no_thread() -> None:
    before = threading.active_count()
    watchdog = LoopWatchdog(list)
    watchdog.stop()
    for _ in range(50):
        watchdog.start()
        watchdog.start()
        watchdog.stop()
        watchdog.stop()
    assert threading.active_count() == before


def test_a_loop_that_is_closed_without_a_stop_ends_the_thread() -> None:
    async def forget() -> LoopWatchdog:
        watchdog = LoopWatchdog(list, threshold=THRESHOLD)
        watchdog.start()
        return watchdog

    thread = thread_of(asyncio.run(forget()))
    assert thread is not None
    thread.join(10)
    assert not thread.is_alive()


FROZEN = """
import asyncio, logging, sys, time
from oban.runner.loop_watchdog import LoopWatchdog

async def main():
    watchdog = LoopWatchdog(list, threshold=float(sys.argv[1]))
    watchdog.start()
    told = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    print("ready", flush=True)
    while not told.done():
        # In small parts, of which those that are left are still to come after a stop.
        for _ in range(30):
            time.sleep(0.01)
        await asyncio.sleep(0)
    watchdog.stop()

logging.basicConfig()
asyncio.run(main())
"""


def test_a_process_that_was_stopped_by_a_signal_has_not_blocked_its_loop() -> None:
    # The short sleeps take longer on a busy machine.
    threshold = 0.6 * slowdown()
    with subprocess.Popen(
        [sys.executable, "-c", FROZEN, str(threshold)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for pause in (0.1, 0.2, 0.3):
            time.sleep(pause)
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            time.sleep(threshold + 0.1)
            process.send_signal(signal.SIGCONT)
        assert process.communicate("end\n") == ("", "")
