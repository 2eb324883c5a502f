"""F5: signals stop 200 real nodes at random moments. Each exits with 0, and leaves no executing job.

Most nodes are forked from a process that has imported everything, as 200 interpreters would take three
minutes to start. The others are new interpreters.
"""

import asyncio
import json
import os
import random
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import URL, text

from oban import Job, JobState, Oban, Worker
from tests.support.processes import ROOT
from tests.support.waiting import eventually, within

pytestmark = pytest.mark.slow

GRACE = 0.3
#: Seconds that a node has to exit after the grace period.
MARGIN = 2.0
#: The number of nodes at once, and of batches, for each database: (10 + 9 × 10) × 2 = 200.
NODES, BATCHES = 10, 9
STARTING, RUNS, STOPPING = "starting, process", "runs own_", "stopping: waiting"
SIGNALS = (
    [signal.SIGTERM],
    [signal.SIGTERM] * 2,
    [signal.SIGTERM] * 5,
    [signal.SIGINT],
    [signal.SIGINT] * 2,
    [signal.SIGINT, signal.SIGTERM],
)


class Press:
    """Forks nodes from a process that has imported everything: see `tests.faults.stop_node`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._started: asyncio.Queue[int] = asyncio.Queue()
        self._ended: dict[int, asyncio.Future[int]] = {}

    async def read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            match line.decode().split():
                case [pid, "started"]:
                    self._started.put_nowait(int(pid))
                case [pid, "ended", code]:
                    self.ended(int(pid)).set_result(int(code))

    def ended(self, pid: int) -> "asyncio.Future[int]":
        """A future for the exit code of a process."""
        return self._ended.setdefault(pid, asyncio.get_running_loop().create_future())

    async def start(self, output: Path, arguments: list[str]) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(output), *arguments]).encode() + b"\n")
        return await self._started.get()


@asynccontextmanager
async def press() -> AsyncIterator[Press]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.stop_node"), cwd=ROOT, stdin=PIPE, stdout=PIPE
    )
    made = Press(process)
    reading = asyncio.create_task(made.read())
    try:
        yield made
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await reading
        await process.wait()


@dataclass
class Node:
    """One node, and the signals that stop it."""

    name: str
    phase: str
    signals: list[signal.Signals]
    #: Seconds from the phase to the first signal, and between signals.
    delay: float
    gap: float
    output: Path
    pid: int = 0
    code: "asyncio.Future[int]" = field(init=False)
    took: float = 0

    def printed(self) -> str:
        return self.output.read_text()

    def arguments(self, url: URL) -> list[str]:
        queues = f"own_{self.name}:4" if self.phase == "idle" else f"own_{self.name}:4,shared:2"
        return [
            *("start", "--database-url", url.render_as_string(hide_password=False)),
            *("--queues", queues, "--node", self.name, "--shutdown-grace-period", str(GRACE)),
            *("--import", "tests.faults.stop_node"),
        ]

    async def stop(self) -> None:
        """Wait for the phase, send the signals, and wait for the end."""
        words = {"start": STARTING, "idle": RUNS, "busy": "has begun", "stop": "has begun"}[self.phase]
        await self.prints(words)
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.delay)
        began = loop.time()
        signals = list(self.signals)
        self.send(signals.pop(0))
        if self.phase == "stop":
            await self.prints(STOPPING)
        for number in signals:
            await asyncio.sleep(self.gap)
            self.send(number)
        await within(asyncio.shield(self.code), 20)
        self.took = loop.time() - began

    async def prints(self, words: str) -> None:
        try:
            await eventually(lambda: words in self.printed() or self.code.done(), 20)
        except AssertionError:
            # SIGABRT makes it print where it hangs: see PYTHONFAULTHANDLER.
            self.send(signal.SIGABRT)
            await asyncio.wait({self.code}, timeout=5)
            raise AssertionError(f"{self} does not say {words!r}, but\n{self.printed()}") from None

    def send(self, number: signal.Signals) -> None:
        if not self.code.done():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def problems(self) -> list[str]:
        """What was wrong with the end of the node."""
        found = []
        if self.code.result() != 0:
            found.append(f"exit code {self.code.result()}")
        # A machine that has more to do than it has cores takes as much longer.
        overload = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        if self.took > GRACE + MARGIN * overload:
            found.append(f"took {self.took:.2f} s")
        printed = self.printed()
        begun = {int(id_) for id_ in re.findall(r"long (\d+) has begun", printed)}
        put_back = {
            int(id_) for ids in re.findall(r"put back jobs .*: ([\d, ]+)", printed) for id_ in ids.split(",")
        }
        if not begun <= put_back:
            found.append(f"the log does not name the jobs {begun - put_back}")
        if "Traceback" in printed or " ERROR " in printed:
            found.append("an error was logged")
        return [f"{self}: {problem}\n{printed}" for problem in found]


def plan(rng: random.Random, batch: str, folder: Path, phases: tuple[str, ...], latest: float) -> list[Node]:
    nodes = []
    for number in range(NODES):
        phase = rng.choice(phases)
        signals = rng.choice([each for each in SIGNALS if phase != "stop" or len(each) > 1])
        name = f"{batch}_{number}"
        output = folder / name
        output.touch()
        # Also while jobs end and outcomes are stored after the grace period.
        gap = rng.uniform(0, GRACE + 0.2) if phase == "stop" else rng.uniform(0, 0.03)
        nodes.append(Node(name, phase, signals, rng.uniform(0, latest), gap, output))
    return nodes


async def enqueue(client: Oban, nodes: list[Node]) -> None:
    jobs = [Job(worker="long", queue="shared") for _ in nodes]
    for node in nodes:
        if node.phase != "idle":
            jobs += [
                Job(worker=worker, queue=f"own_{node.name}") for worker in ("long", *["brief"] * 6, "long")
            ]
    await client.enqueue_many(jobs)


async def check(client: Oban, nodes: list[Node]) -> list[str]:
    """Find errors after all nodes have ended, and delete all jobs."""
    problems = [problem for node in nodes for problem in node.problems()]
    for row in await client.list_jobs():
        back = (row.state, row.attempt, row.errors) == (JobState.AVAILABLE, 0, [])
        done = row.worker == "brief" and (row.state, row.attempt) == (JobState.COMPLETED, 1)
        if not back and not done:
            problems.append(f"job {row.id}, {row.worker}: {row.state}, attempt {row.attempt}, {row.errors}")
        await client.delete_job(row)
    async with client.engine.connect() as connection:
        left = (await connection.execute(text("SELECT node, queue FROM oban_producers"))).all()
    return problems + [f"the producer of {queue} on {node} is left" for node, queue in left]


async def test_nodes_that_are_copies_of_one_process_stop_cleanly(
    url: URL, tmp_path: Path, rng: random.Random
) -> None:
    async with Oban(url) as client, press() as copies:
        for batch in range(BATCHES):
            nodes = plan(rng, str(batch), tmp_path, ("start", "idle", "busy", "busy", "stop"), 0.1)
            await enqueue(client, nodes)
            for node in nodes:
                node.pid = await copies.start(node.output, node.arguments(url))
                node.code = copies.ended(node.pid)
            await asyncio.gather(*(node.stop() for node in nodes))
            print(
                "batch",
                batch,
                asyncio.get_running_loop().time(),
                [(n.phase, round(n.took, 2)) for n in nodes],
            )
            assert await check(client, nodes) == []


async def test_nodes_that_have_just_begun_to_start_stop_cleanly(
    url: URL, tmp_path: Path, rng: random.Random
) -> None:
    async with Oban(url) as client:
        nodes = plan(rng, "fresh", tmp_path, ("start",), 0.5)
        await enqueue(client, nodes)
        processes = []
        try:
            for node in nodes:
                with node.output.open("ab") as output:
                    process = await asyncio.create_subprocess_exec(
                        *(sys.executable, "-m", "oban", *node.arguments(url)),
                        cwd=ROOT,
                        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
                        stdin=DEVNULL,
                        stdout=output,
                        stderr=output,
                    )
                processes.append(process)
                node.pid = process.pid
                node.code = asyncio.ensure_future(process.wait())
            await asyncio.gather(*(node.stop() for node in nodes))
            assert await check(client, nodes) == []
        finally:
            for process in processes:
                with suppress(ProcessLookupError):
                    process.kill()


#: Prints a line when `oban.cli` is about to be imported. Python imports this module before it runs any other.
BEGINNING = """
import os, sys

class Finder:
    @staticmethod
    def find_spec(name, *_):
        if name == "oban.cli":
            os.write(1, b"begins\\n")

sys.meta_path.insert(0, Finder)
"""
#: Seconds from the first import to the signal, of two nodes at a time.
MOMENTS = [(0, 0.05), (0.1, 0.2), (0.3, 0.4), (0.6, 1)]


@pytest.mark.parametrize("kind", [[], ["--processes", "2"], ["--watch"], ["unreachable"]], ids=" ".join)
async def test_a_start_ends_cleanly_whenever_a_signal_arrives(
    kind: list[str], sqlite_url: URL, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BEGINNING)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    if kind == ["unreachable"]:
        options = ["--database-url", "postgresql+asyncpg://nobody@127.0.0.1:1/none"]
    else:
        options = ["--database-url", sqlite_url.render_as_string(), *kind]

    async def interrupted_after(seconds: float) -> tuple[float, int | None, bytes]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "oban", "start", "--import", "tests.faults.stop_node", *options),
            cwd=tmp_path,
            env=environment,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        assert process.stdout is not None
        try:
            assert await within(process.stdout.readline(), 60) == b"begins\n"
            await asyncio.sleep(seconds)
            process.terminate()
            _, errors = await within(process.communicate(), 60)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
        return seconds, process.returncode, errors

    problems = []
    for pair in MOMENTS:
        for seconds, code, errors in await asyncio.gather(*map(interrupted_after, pair)):
            if code != 0 or b"Traceback" in errors:
                problems.append(f"after {seconds} s: exit code {code}\n{errors.decode()}")
    assert problems == []


class Embedded:
    """An application that runs jobs in its own event loop."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.jobs: list[Job] = []
        self.leave = asyncio.Event()

    async def run(self) -> None:
        async with Oban(self.url, queues={"default": 4}, shutdown_grace_period=0.1) as oban:
            self.jobs = await oban.enqueue_many([Endless.new() for _ in range(3)])
            await self.leave.wait()
            raise LookupError("of the application")


class Endless(Worker):
    async def process(self, job: Job) -> None:
        await asyncio.sleep(3600)


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "left by an error"])
async def test_an_application_that_is_interrupted_puts_its_jobs_back(
    url: URL, cancelled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    application = Embedded(url)
    async with Oban(url, name="client") as client:
        running = asyncio.create_task(application.run())

        async def all_run() -> bool:
            return [job.state for job in await client.list_jobs()] == [JobState.EXECUTING] * 3

        await eventually(all_run)
        if cancelled:
            running.cancel()
        else:
            application.leave.set()
        with pytest.raises(asyncio.CancelledError if cancelled else LookupError):
            await within(running, GRACE + MARGIN)
        rows = {(row.state, row.attempt, len(row.errors)) for row in await client.list_jobs()}
    assert rows == {(JobState.AVAILABLE, 0, 0)}
    named = re.findall(r"put back jobs .*: ([\d, ]+)", caplog.text)
    assert sorted(int(id_) for id_ in named[0].split(",")) == [job.id for job in application.jobs]
