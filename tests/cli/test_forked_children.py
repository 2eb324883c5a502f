"""Jobs that fork: the children end on their own, and the node goes on."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL

from oban import Job, Oban
from tests.support.commands import node, text, until
from tests.support.waiting import eventually

WORKERS = '''
import asyncio, concurrent.futures, multiprocessing, os, pty, signal, subprocess, sys, time
from oban import Record, job

FORK = multiprocessing.get_context("fork")

def ending(child):
    child.join(10)
    return child.exitcode

def fork(run, before_wait=lambda pid: None):
    """Run a function in a forked child, and return the exit code of the child."""
    pid = os.fork()
    if pid == 0:
        run()
        raise SystemExit(7)
    before_wait(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def sleep():
    time.sleep(60)

def terminate(pid, number=signal.SIGTERM):
    os.kill(pid, number)

def killed_at_once():
    child = FORK.Process(target=sleep)
    child.start()
    child.terminate()
    return ending(child)

def pool():
    with FORK.Pool(2) as workers:
        return workers.map(abs, [-1, 2])

def executor():
    with concurrent.futures.ProcessPoolExecutor(2, FORK) as workers:
        return list(workers.map(abs, [-1, 2]))

def each_signal():
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    return [fork(sleep, lambda pid: terminate(pid, number)) for number in numbers]

def group():
    def run():
        os.setsid()
        ready.set()
        time.sleep(60)
    ready = FORK.Event()
    child = FORK.Process(target=run)
    child.start()
    ready.wait(10)
    os.killpg(child.pid, signal.SIGTERM)
    return ending(child)

def programs():
    program = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"]
    codes = []
    for options in ({}, {"preexec_fn": os.getpid}, {"start_new_session": True}):
        with subprocess.Popen(program, stdout=subprocess.PIPE, **options) as child:
            child.stdout.readline()
            child.terminate()
            codes.append(child.wait())
    return codes

def exits():
    def fails():
        raise LookupError
    return [fork(lambda: sys.exit(3)), fork(lambda: os._exit(4)), fork(fails), fork(sys.exit), fork(bool)]

def process_exits():
    children = [FORK.Process(target=target, args=args) for target, args in ((sys.exit, (3,)), (bool, ()))]
    for child in children:
        child.start()
    return [ending(child) for child in children]

def reaped():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    while os.waitpid(-1, 0)[0] != pid:
        pass

EXPECTED = {
    killed_at_once: -15,
    pool: [1, 2],
    executor: [1, 2],
    each_signal: [-15, -1, -2],
    group: -15,
    programs: [-15, -15, -15],
    exits: [3, 4, 1, 0, 7],
    process_exits: [3, 0],
    reaped: None,
}

def check():
    found = {call.__name__: call() for call in EXPECTED}
    assert found == {call.__name__: result for call, result in EXPECTED.items()}, found

@job
def in_thread():
    check()

@job
async def on_loop():
    check()

@job(executor="process")
def in_process():
    check()

@job
async def in_another_thread():
    codes = await asyncio.to_thread(lambda: [fork(sys.exit), fork(lambda: os._exit(4))])
    assert codes == [0, 4], codes

    def returns():
        pid = os.fork()
        return pid and os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert await asyncio.to_thread(returns) == 0

@job
async def awaits():
    if os.fork() == 0:
        await asyncio.sleep(0)
        os.kill(os.getppid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 1

async def middleware(job, call_next):
    pid = os.fork()
    if pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return await call_next(job)

def plain_middleware(job, call_next):
    result = call_next(job)
    pid = os.fork()
    if pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return result

@job(middleware=[middleware])
async def within_middleware():
    pass

@job(middleware=[plain_middleware])
def within_plain_middleware():
    pass
'''
NAMES = ("in_another_thread", "in_thread", "on_loop", "in_process", "awaits", "within_middleware")


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_jobs_can_fork_and_end_their_children_on_every_executor(
    loop: str, sqlite_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "forking.py").write_text(WORKERS)
    monkeypatch.chdir(tmp_path)
    if loop == "asyncio":
        (tmp_path / "uvloop.py").write_text("from asyncio import new_event_loop\n")
    async with Oban(sqlite_url) as client:
        jobs = [Job(worker=f"forking.{name}", max_attempts=1) for name in (*NAMES, "within_plain_middleware")]
        with node(
            *("--database-url", text(sqlite_url), "--import", "forking", "--queues", "default:1")
        ) as process:
            await asyncio.to_thread(until, process, "runs default")
            await client.enqueue_many(jobs)

            async def have_ended() -> bool:
                return not any(row.state in ("available", "executing") for row in await client.list_jobs())

            await eventually(have_ended, 60)
            rows = await client.list_jobs()
            assert {row.worker: (row.state.value, row.errors) for row in rows} == {
                each.worker: ("completed", []) for each in jobs
            }
            process.terminate()
            assert await asyncio.to_thread(process.wait, 10) == 0


EMBEDDED = """
import asyncio, multiprocessing, os, signal, sys, time
from oban import Oban, Record, job

FORK = multiprocessing.get_context("fork")

def of_application(*_):
    pass

def fork():
    child = FORK.Process(target=time.sleep, args=(30,))
    child.start()
    child.terminate()
    child.join(10)
    pid = os.fork()
    if pid == 0:
        sys.exit(9 if signal.getsignal(signal.SIGUSR1) is of_application else 1)
    return [child.exitcode, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]

@job
def in_thread():
    return Record(fork())

@job
async def on_loop():
    return Record(fork())

async def main():
    received = []
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, received.append, "SIGTERM")
    signal.signal(signal.SIGUSR1, of_application)
    async with Oban(sys.argv[1], queues={"default": 1}) as oban:
        for job in await oban.enqueue_many([in_thread.new(), on_loop.new()]):
            print((await oban.wait(job, timeout=60)).recorded)
        print(received)
        os.kill(os.getpid(), signal.SIGTERM)
        while not received:
            await asyncio.sleep(0.01)
        print(received)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.slow
def test_a_signal_to_a_child_does_not_reach_an_application_that_runs_jobs(
    sqlite_url: URL, tmp_path: Path
) -> None:
    script = tmp_path / "embedded.py"
    script.write_text(EMBEDDED)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, text(sqlite_url)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[-15, 9]\n[-15, 9]\n[]\n['SIGTERM']\n", "")
