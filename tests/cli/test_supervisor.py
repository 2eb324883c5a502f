"""A supervisor replaces nodes that die, passes on requests to stop, and leaves no process behind."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from oban import Job, JobState, Oban
from oban.cli import supervisor as module
from oban.cli.supervisor import Supervisor
from tests.support.commands import node, oban, text, until
from tests.support.internals import all_ready
from tests.support.waiting import eventually, within

PREFIX = "import os, signal, socket, sys, time; link = socket.socket(fileno=int(sys.argv[2]))\n"
#: Minimal nodes: a supervisor in this process runs each of these pieces of Python.
HEALTHY_AFTER = PREFIX + "link.send(b'r'); link.recv(1)"
DEAF = PREFIX + "signal.signal(signal.SIGTERM, signal.SIG_IGN); link.send(b'r'); time.sleep(60)"
SLOW = PREFIX + "link.send(b'r30'); link.recv(1); time.sleep(0.2)"
DIES = PREFIX + "link.send(b'r'); os.kill(os.getpid(), 9)"
ENDS = PREFIX + "link.send(b'r')"
FAILS = PREFIX + "sys.exit(2)"
IMPORTS = PREFIX + "time.sleep(60)"
COUNTS = PREFIX + (
    "link.send(b'r'); n = 0\nwhile n < 3: n += len(link.recv(8)); open(sys.argv[1], 'w').write(str(n))\n"
)


class Recorder(Supervisor):
    """A supervisor of nodes that run a piece of Python."""

    def __init__(self, code: str, nodes: Sequence[str] = ("a",), grace: float = 0) -> None:
        self.starts: list[tuple[str, float]] = []
        super().__init__(lambda name, link: self._command(code, name, link), nodes, dict(os.environ), grace)

    def _command(self, code: str, name: str, link: int) -> list[str]:
        self.starts.append((name, time.monotonic()))
        return [sys.executable, "-S", "-c", code, name, str(link)]

    def started(self, number: int) -> Callable[[], bool]:
        return lambda: len(self.starts) >= number

    def ready(self) -> bool:
        return all_ready(self)


def all_say(files: Sequence[Path], words: str) -> bool:
    return all(path.exists() and path.read_text() == words for path in files)


async def ends(running: "asyncio.Task[int]") -> int:
    return await within(running, 15)


@pytest.mark.parametrize(
    ("code", "how"), [(DIES, "ended by SIGKILL"), (ENDS, "ended with exit code 0")], ids=["killed", "0"]
)
async def test_a_node_that_ends_is_started_again_after_growing_pauses(
    code: str, how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RESTART_PAUSE", 0.2)
    monkeypatch.setattr(module, "LONGEST_RESTART_PAUSE", 0.5)
    supervisor = Recorder(code)
    running = asyncio.create_task(supervisor.run())
    await eventually(supervisor.started(5))
    supervisor.stop()
    assert await ends(running) == 0
    times = [at for _, at in supervisor.starts]
    pauses = [after - before for before, after in pairwise(times)]
    assert [pause >= least for pause, least in zip(pauses, (0.2, 0.4, 0.5, 0.5), strict=True)] == [True] * 4
    assert {name for name, _ in supervisor.starts} == {"a"}
    assert f"node a {how} after" in caplog.text


async def test_a_node_that_lived_for_long_is_started_again_soon(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RESTART_PAUSE", 0.05)
    monkeypatch.setattr(module, "LONGEST_RESTART_PAUSE", 60.0)
    monkeypatch.setattr(module, "HEALTHY_AFTER", 0.0)
    supervisor = Recorder(ENDS)
    running = asyncio.create_task(supervisor.run())
    # The twelfth pause would be longer than a minute.
    await eventually(supervisor.started(13))
    supervisor.stop()
    assert await ends(running) == 0


async def test_a_node_that_fails_before_any_has_started_ends_the_supervisor_with_its_exit_code() -> None:
    supervisor = Recorder(FAILS, ["a", "b", "c"])
    assert await within(supervisor.run(), 15) == 2
    assert [name for name, _ in supervisor.starts] == ["a"]


async def test_the_other_nodes_follow_once_the_first_has_started() -> None:
    supervisor = Recorder(HEALTHY_AFTER, ["a", "b", "c"])
    running = asyncio.create_task(supervisor.run())
    await eventually(supervisor.ready)
    assert supervisor.starts[0][0] == "a"
    supervisor.stop()
    assert await ends(running) == 0
    assert sorted(name for name, _ in supervisor.starts) == ["a", "b", "c"]


async def test_a_node_that_has_not_started_yet_stops_at_once() -> None:
    supervisor = Recorder(IMPORTS, ["a", "b"])
    running = asyncio.create_task(supervisor.run())
    await eventually(supervisor.started(1))
    supervisor.stop()
    assert await ends(running) == 0
    assert len(supervisor.starts) == 1


async def test_a_stop_does_not_wait_for_the_pause_before_the_next_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RESTART_PAUSE", 30.0)
    supervisor = Recorder(DIES)
    running = asyncio.create_task(supervisor.run())
    await eventually(lambda: "next start in 3" in caplog.text or "next start in 4" in caplog.text)
    supervisor.stop()
    assert await ends(running) == 0


async def test_each_request_to_stop_reaches_each_node_once(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    supervisor = Recorder(COUNTS, [str(path) for path in files])
    running = asyncio.create_task(supervisor.run())
    await eventually(supervisor.ready)
    for number in (1, 2, 3):
        os.kill(os.getpid(), (signal.SIGTERM, signal.SIGINT, signal.SIGTERM)[number - 1])
        await eventually(partial(all_say, files, str(number)))
    assert await ends(running) == 0


async def test_a_node_that_does_not_stop_is_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "KILL_AFTER", 0.2)
    supervisor = Recorder(DEAF, grace=0.1)
    running = asyncio.create_task(supervisor.run())
    await eventually(supervisor.ready)
    supervisor.stop()
    assert await ends(running) == 0
    assert "node a did not stop and was killed" in caplog.text


async def test_a_node_is_not_killed_within_the_grace_period_that_it_reports(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "KILL_AFTER", 0.0)
    supervisor = Recorder(SLOW, grace=0)
    running = asyncio.create_task(supervisor.run())
    await eventually(supervisor.ready)
    supervisor.stop()
    assert await ends(running) == 0
    assert "killed" not in caplog.text


async def test_a_process_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RESTART_PAUSE", 0.01)
    tries: list[str] = []

    def command(name: str, link: int) -> list[str]:
        tries.append(name)
        return (
            ["/no/such/program"]
            if len(tries) < 3
            else [sys.executable, "-S", "-c", HEALTHY_AFTER, name, str(link)]
        )

    supervisor = Supervisor(command, ["a"], {}, 0)
    running = asyncio.create_task(supervisor.run())
    await eventually(lambda: len(tries) == 3)
    supervisor.stop()
    assert await ends(running) == 0
    assert "node a could not be started: " in caplog.text


# -- with real nodes -----------------------------------------------------------------------------------


class Lines:
    """The lines that a supervisor and its nodes have printed."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []

    async def until(self, *words: str) -> None:
        """Read lines until each of these strings was printed."""
        left = set(words)
        while left:
            new = await asyncio.to_thread(until, self.process, "")
            self.lines += new
            left = {word for word in left if not any(word in line for line in new)}

    def pid(self, name: str) -> int:
        """The id of the newest process of a node."""
        found = re.findall(rf" {name}  oban  starting, process (\d+)", "".join(self.lines))
        return int(found[-1])


def command(url: URL, *more: str) -> list[str]:
    return [
        "--database-url",
        text(url),
        "--import",
        "app.workers",
        "--node",
        "web",
        "--processes",
        "2",
        *more,
    ]


BOTH = ("node web-1 runs", "node web-2 runs")


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def of_process(pid: int, file: str) -> list[str]:
    return Path(f"/proc/{pid}/{file}").read_text().split("\0")


async def rows(client: Oban, *states: JobState) -> list[Job]:
    return [job for job in await client.list_jobs() if job.state in states]


async def all_run(client: Oban, jobs: Sequence[Job]) -> set[str]:
    """Wait until all of these jobs run, and return their nodes."""

    async def executing() -> bool:
        return len(await rows(client, JobState.EXECUTING)) == len(jobs)

    await eventually(executing, 20)
    return {row.attempted_by[0] for row in await rows(client, JobState.EXECUTING)}


async def test_a_node_that_is_killed_is_replaced_and_all_stop_together(postgresql_url: URL) -> None:
    async with Oban(postgresql_url) as client:
        with node(
            *command(postgresql_url, "--queues", "default:1", "--shutdown-grace-period", "0.5")
        ) as process:
            printed = Lines(process)
            await printed.until(*BOTH)
            killed = printed.pid("web-1")
            os.kill(killed, signal.SIGKILL)
            await printed.until("node web-1 ended by SIGKILL", "node web-1 runs")
            assert printed.pid("web-1") != killed
            # As many jobs as slots, so each node, also the new one, has to take one.
            jobs = [await client.enqueue(Job(worker="slow")) for _ in range(2)]
            assert await all_run(client, jobs) == {"web-1", "web-2"}
            nodes = [printed.pid("web-1"), printed.pid("web-2")]
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 15) == 0
            assert [is_gone(pid) for pid in nodes] == [True, True]
        states = {(job.state, job.attempt, len(job.errors)) for job in await client.list_jobs()}
        assert states == {(JobState.AVAILABLE, 0, 0)}


async def test_the_end_of_the_supervisor_stops_its_nodes(sqlite_url: URL) -> None:
    async with Oban(sqlite_url) as client:
        jobs = [await client.enqueue(Job(worker="slow")) for _ in range(2)]
        with node(*command(sqlite_url, "--queues", "default:1", "--shutdown-grace-period", "0")) as process:
            printed = Lines(process)
            await printed.until(*BOTH)
            await all_run(client, jobs)
            nodes = [printed.pid("web-1"), printed.pid("web-2")]
            process.kill()
            await printed.until(
                "web-1  oban  the supervisor has ended", "web-2  oban  the supervisor has ended"
            )
            await eventually(lambda: all(is_gone(pid) for pid in nodes))
        states = {(job.state, job.attempt, len(job.errors)) for job in await client.list_jobs()}
        assert states == {(JobState.AVAILABLE, 0, 0)}


@pytest.mark.slow
async def test_a_signal_to_every_process_at_once_leaves_jobs_their_grace_period(sqlite_url: URL) -> None:
    async with Oban(sqlite_url) as client:
        with node(*command(sqlite_url, "--shutdown-grace-period", "30")) as process:
            printed = Lines(process)
            await printed.until(*BOTH)
            job = await client.enqueue(Job(worker="brief", args={"seconds": 1}))
            await all_run(client, [job])
            # Like a service manager.
            for pid in (printed.pid("web-1"), printed.pid("web-2"), process.pid):
                os.kill(pid, signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 15) == 0
        row: Any = await client.get_job(job.id)
        assert (row.state, row.attempt) == (JobState.COMPLETED, 1)


@pytest.mark.slow
async def test_a_second_signal_is_passed_on(sqlite_url: URL) -> None:
    async with Oban(sqlite_url) as client:
        job = await client.enqueue(Job(worker="slow"))
        with node(*command(sqlite_url, "--shutdown-grace-period", "50")) as process:
            printed = Lines(process)
            await printed.until(*BOTH)
            await all_run(client, [job])
            process.send_signal(signal.SIGINT)
            await printed.until("waiting for running jobs")
            process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(process.wait, 15) == 0
        row: Any = await client.get_job(job.id)
        assert (row.state, row.attempt, row.errors) == (JobState.AVAILABLE, 0, [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--import", "no.such"], "--import no.such: No module named 'no'"),
        (["--lease", "0"], "lease must be at least 0.1"),
        ([], "there are no Oban tables"),
    ],
)
def test_an_error_that_prevents_every_start_is_reported_once_and_ends_the_supervisor(
    arguments: list[str], words: str
) -> None:
    result = oban("start", "--database-url", "sqlite+aiosqlite:///empty.db", "--processes", "3", *arguments)
    assert result.returncode == 1
    assert result.stderr.count(words) == 1
    assert "Traceback" not in result.stderr


@pytest.mark.slow
async def test_no_password_is_among_the_arguments_of_a_node(postgresql_url: URL) -> None:
    url = postgresql_url.set(password="s3cret")
    with node(*command(url, "--listen-url", text(url), "--lease", "5")) as process:
        printed = Lines(process)
        await printed.until(*BOTH)
        for name in ("web-1", "web-2"):
            arguments = of_process(printed.pid(name), "cmdline")
            assert "s3cret" not in " ".join(arguments)
            assert arguments[arguments.index("--lease") + 1] == "5.0"
            environment = of_process(printed.pid(name), "environ")
            assert f"OBAN_LISTEN_URL={text(url)}" in environment
            assert f"OBAN_DATABASE_URL={text(url)}" in environment
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 15) == 0
