"""Jobs that do what a job should not: each completes or fails by itself, and the node goes on."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import URL

from oban import Job, JobState, Oban
from tests.support.commands import node, text, until
from tests.support.jobs import reaches
from tests.support.waiting import eventually

WORKERS = """
import asyncio, os, signal, stat, sys, threading, time
from oban import Record, job

async def leave():
    sys.exit(4)

@job
async def task_exits():
    await asyncio.create_task(leave())

@job
async def group_exits():
    async with asyncio.TaskGroup() as group:
        group.create_task(leave())

@job
async def callback_exits():
    asyncio.get_running_loop().call_soon(sys.exit, 3)
    await asyncio.sleep(0.05)

@job
async def interrupts():
    raise KeyboardInterrupt

@job
async def stops_loop():
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.05)

@job
def thread_exits():
    sys.exit(5)

def recurse():
    recurse()

@job
def recursion():
    recurse()

@job
def memory():
    bytearray(1 << 60)

@job
def reaps_any_child():
    until = time.monotonic() + 1
    while time.monotonic() < until:
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            pass
        time.sleep(0.001)

@job
async def ignores_children():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)

@job(executor="process")
def ends_process():
    os._exit(6)

@job(executor="process")
def signals_itself():
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        os.kill(os.getpid(), number)

@job(executor="process")
def closes_everything():
    os.closerange(0, 256)

@job(executor="process")
def writes_to_sockets():
    for descriptor in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                os.write(descriptor, b"\\0")
        except OSError:
            pass

@job(executor="process")
def in_process():
    return Record("fine")

@job
async def takes_signals():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

@job
async def closes_streams():
    sys.stdout.close()
    sys.stderr.close()
"""
OUTCOMES = {
    "task_exits": "SystemExit: 4",
    "group_exits": "SystemExit: 4",
    "callback_exits": None,
    "interrupts": "KeyboardInterrupt",
    "stops_loop": None,
    "thread_exits": "SystemExit: 5",
    "recursion": "RecursionError",
    "memory": "MemoryError",
    "reaps_any_child": None,
    "ends_process": "ended",
    "signals_itself": None,
    # It has ended by itself, or it was killed because it took long to end without a connection.
    "closes_everything": "the child process",
    "writes_to_sockets": "invalid message",
    "ignores_children": None,
    "in_process": None,
    "takes_signals": None,
}


@pytest.mark.slow
async def test_a_node_outlives_its_jobs(sqlite_url: URL, folder: Path) -> None:
    (folder / "harmful.py").write_text(WORKERS)
    arguments = ("--database-url", text(sqlite_url), "--import", "harmful", "--queues", "default:2")
    async with Oban(sqlite_url) as client:
        with node(*arguments) as process:
            await asyncio.to_thread(until, process, "runs default")
            jobs = [Job(worker=f"harmful.{name}", max_attempts=1) for name in OUTCOMES]
            await client.enqueue_many(jobs)

            async def have_ended() -> bool:
                return {row.state.value for row in await client.list_jobs()} <= {"completed", "discarded"}

            await eventually(have_ended, 30)
            found = {row.worker.removeprefix("harmful."): row for row in await client.list_jobs()}
            for name, error in OUTCOMES.items():
                row = found[name]
                assert row.state.value == ("discarded" if error else "completed"), (name, row.errors)
                assert error is None or error in row.errors[0]["error"], (name, row.errors)
            await asyncio.to_thread(until, process, "a job has replaced the handler of SIGTERM")
            for name in ("closes_streams", "in_process"):
                job = await client.enqueue(Job(worker=f"harmful.{name}"))
                await reaches(client, job, JobState.COMPLETED)
            process.terminate()
            assert await asyncio.to_thread(process.wait, 15) == 0
