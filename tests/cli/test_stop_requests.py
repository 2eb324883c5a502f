"""Signals stop a node: which of them count, and from which moment on."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from oban import Job, JobState, Oban
from oban.cli.requests import SignalRequests
from tests.support.commands import node, text, until
from tests.support.jobs import reaches
from tests.support.waiting import eventually

HUP, INT, TERM = signal.SIGHUP, signal.SIGINT, signal.SIGTERM
NUMBERS = (HUP, INT, TERM)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Give the signals of the test process their handlers back. Under nohup, it ignores SIGHUP."""
    before = [signal.getsignal(number) for number in NUMBERS]
    signal.signal(HUP, signal.SIG_DFL)
    yield
    for number, handler in zip(NUMBERS, before, strict=True):
        signal.signal(number, handler)


async def send(*numbers: signal.Signals) -> None:
    """Send signals to this process, and let the event loop handle each."""
    loop = asyncio.get_running_loop()
    for number in numbers:
        handled = asyncio.Event()
        os.kill(os.getpid(), number)
        # The loop reads the signals of one wakeup before it runs what was called later.
        loop.call_later(0.02, handled.set)
        await handled.wait()


@pytest.mark.parametrize(
    ("numbers", "count"),
    [
        ([TERM], 1),
        ([TERM, TERM], 2),
        ([INT, TERM, INT], 3),
        ([HUP], 1),
        ([HUP, HUP], 1),
        ([TERM, HUP], 1),
        ([HUP, TERM], 1),
        ([HUP, TERM, HUP, TERM], 2),
    ],
)
async def test_a_hangup_stops_and_only_other_signals_repeat_a_request(
    numbers: list[signal.Signals], count: int
) -> None:
    stops: list[int] = []
    SignalRequests(lambda: stops.append(1)).receive()
    await send(*numbers)
    assert len(stops) == count


async def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    signal.signal(HUP, signal.SIG_IGN)
    stops: list[int] = []
    SignalRequests(lambda: stops.append(1)).receive()
    await send(HUP)
    assert signal.getsignal(HUP) == signal.SIG_IGN
    await send(TERM)
    assert len(stops) == 1


async def test_a_handler_that_a_job_has_replaced_is_set_again(caplog: pytest.LogCaptureFixture) -> None:
    stopped = asyncio.Event()
    requests = SignalRequests(stopped.set)
    requests.receive()
    waiting = asyncio.create_task(requests.wait(stopped))
    signal.signal(TERM, signal.SIG_IGN)
    await eventually(lambda: signal.getsignal(TERM) != signal.SIG_IGN)
    assert "a job has replaced the handler of SIGTERM" in caplog.text
    os.kill(os.getpid(), TERM)
    await waiting


#: A module that is imported at the start, and during whose import signals arrive.
INTERRUPTED = "import os, signal, time; os.kill(os.getpid(), signal.{}); time.sleep(60)\n"


@pytest.mark.parametrize(
    ("module", "number"),
    [("click", "SIGTERM"), ("click", "SIGINT"), ("click", "SIGHUP"), ("mine", "SIGTERM")],
)
def test_a_signal_during_the_imports_ends_the_command_cleanly(module: str, number: str, folder: Path) -> None:
    (folder / f"{module}.py").write_text(INTERRUPTED.format(number))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "oban",
            "start",
            "--database-url",
            "sqlite+aiosqlite:///a.db",
            "--import",
            "mine",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == (module == "mine")


def test_other_commands_do_not_pretend_to_have_succeeded(folder: Path) -> None:
    (folder / "click.py").write_text(INTERRUPTED.format("SIGTERM"))
    done = subprocess.run([sys.executable, "-m", "oban", "install"], timeout=60, check=False)
    assert done.returncode == -signal.SIGTERM


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--processes", "2"]], ids=["one", "several"])
async def test_a_hangup_stops_nodes_and_two_leave_the_jobs_their_grace_period(
    options: list[str], sqlite_url: URL
) -> None:
    arguments = ("--database-url", text(sqlite_url), "--import", "app.workers", *options)
    async with Oban(sqlite_url) as client:
        with node(*arguments) as process:
            await asyncio.to_thread(until, process, "runs default")
            job = await client.enqueue(Job(worker="brief", args={"seconds": 1}))
            await reaches(client, job, JobState.EXECUTING)
            process.send_signal(HUP)
            await asyncio.to_thread(until, process, "stopping: waiting")
            process.send_signal(HUP)
            assert await asyncio.to_thread(process.wait, 20) == 0
        [row] = await client.list_jobs()
        assert (row.id, row.state) == (job.id, JobState.COMPLETED)


@pytest.mark.slow
async def test_a_hangup_does_not_stop_what_nohup_has_started(sqlite_url: URL) -> None:
    arguments = ("--database-url", text(sqlite_url), "--import", "app.workers")
    async with Oban(sqlite_url) as client:
        with node(*arguments, through=["nohup"]) as process:
            await asyncio.to_thread(until, process, "runs default")
            process.send_signal(HUP)
            job = await client.enqueue(Job(worker="brief", args={"seconds": 1}))
            await reaches(client, job, JobState.COMPLETED)
            assert process.poll() is None
            process.send_signal(TERM)
            assert await asyncio.to_thread(process.wait, 20) == 0
