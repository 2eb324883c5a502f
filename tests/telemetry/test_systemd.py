"""systemd hears when a node is ready, how it does, that it works, and that it stops."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL

from oban import Job, JobState, NodeCheck, Oban, Worker
from oban.cli import status as status_module
from oban.cli.status import Status
from oban.cli.systemd import Systemd
from oban.runner import node_check
from tests.support.jobs import reaches
from tests.support.options import BRIEF
from tests.support.processes import ROOT
from tests.support.schema import render
from tests.support.waiting import Deadline, eventually

READY = NodeCheck(True, True)
BLOCKED = NodeCheck(False, False, ("the event loop\nis blocked", "more"))


class Manager:
    """The socket of a service manager. `abstract` sockets have no file."""

    def __init__(self, folder: Path, *, abstract: bool = False) -> None:
        self.address = (
            f"@oban-test-{os.getpid()}-{time.monotonic_ns()}" if abstract else str(folder / "notify")
        )
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address.replace("@", "\0", 1) if abstract else self.address)
        self._socket.setblocking(False)
        self.lines: list[str] = []

    def receive(self) -> list[str]:
        """The lines that have arrived since the last call."""
        new: list[str] = []
        while True:
            try:
                new += self._socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                self.lines += new
                return new

    def has(self, *words: str) -> bool:
        """Whether each of these lines has arrived by now."""
        self.receive()
        return all(any(line.startswith(word) for line in self.lines) for word in words)

    def is_blocked(self) -> bool:
        """Whether the newest status says that an event loop is blocked."""
        found = [line for line in self.lines if line.startswith("STATUS=")]
        return bool(found) and "the event loop has been blocked" in found[-1]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def any_manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path, abstract=request.param == "abstract")
    yield manager
    manager.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path)
    yield manager
    manager.close()


def found(manager: Manager, **environment: str) -> Systemd:
    systemd = Systemd.find({"NOTIFY_SOCKET": manager.address, **environment})
    assert systemd is not None
    return systemd


def test_ready_is_sent_once_and_the_status_when_it_changes(any_manager: Manager) -> None:
    systemd = found(any_manager)
    systemd.update(NodeCheck(True, False, ("the node is starting",)))
    assert any_manager.receive() == ["STATUS=the node is starting"]
    systemd.update(READY)
    assert any_manager.receive() == ["READY=1", "STATUS=ready"]
    systemd.update(READY)
    assert any_manager.receive() == []
    # A line break would be another message.
    systemd.update(BLOCKED)
    assert any_manager.receive() == ["STATUS=the event loop is blocked; more"]
    systemd.update(READY)
    assert any_manager.receive() == ["STATUS=ready"]


def test_a_stop_asks_for_the_grace_period_and_is_never_ready_again(manager: Manager) -> None:
    systemd = found(manager)
    systemd.stop(300)
    systemd.update(READY)
    assert manager.receive() == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=330000000", "STATUS=ready"]


def test_the_watchdog_is_pinged_at_half_of_its_interval_while_the_node_is_live(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("oban.clock.monotonic", lambda: now)
    systemd = found(manager, WATCHDOG_USEC="10000000", WATCHDOG_PID=str(os.getpid()))
    pings = []
    for second in range(20):
        now = float(second)
        systemd.update(BLOCKED if 7 <= now <= 12 else READY)
        if "WATCHDOG=1" in manager.receive():
            pings.append(second)
    assert pings == [0, 5, 13, 18]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
)
def test_without_a_watchdog_of_this_process_it_is_not_pinged(
    manager: Manager, environment: dict[str, str]
) -> None:
    systemd = found(manager, **environment)
    systemd.update(READY)
    assert manager.receive() == ["READY=1", "STATUS=ready"]


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative"])
def test_without_a_unix_socket_nothing_is_sent(address: str) -> None:
    assert Systemd.find({"NOTIFY_SOCKET": address}) is None
    assert Systemd.find({}) is None


def test_a_manager_that_has_gone_is_logged_once(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    systemd = found(manager)
    manager.close()
    for check in (READY, BLOCKED, READY):
        systemd.update(check)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["cannot notify systemd"]


class Blocks(Worker, name="tests.systemd.Blocks"):
    """Blocks the event loop until a test lets it go on."""

    let_go = threading.Event()

    async def process(self, job: Job) -> None:
        self.let_go.wait(30)


async def test_a_blocked_loop_stops_the_pings_until_it_answers(
    url: URL, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_check, "BLOCKED_AFTER", 0.3)
    monkeypatch.setattr(status_module, "INTERVAL", 0.02)
    Blocks.let_go.clear()
    silent: list[list[str]] = []

    def watch() -> None:
        deadline = Deadline(20)
        while not manager.has("STATUS=the event loop has been blocked") and not deadline.passed():
            time.sleep(0.02)
        for _ in range(20):
            time.sleep(0.02)
            silent.append(manager.receive())
        Blocks.let_go.set()

    async with Oban(url, queues={"default": 2}, **BRIEF) as oban:
        status = Status(found(manager, WATCHDOG_USEC="40000"))
        status.check = oban.check_node
        await eventually(lambda: manager.has("READY=1", "WATCHDOG=1"))
        watching = threading.Thread(target=watch)
        watching.start()
        # The job can begin before this returns.
        job = await oban.enqueue(Blocks.new())
        await reaches(oban, job, JobState.COMPLETED)
        watching.join()
        assert [line for lines in silent for line in lines] == []
        manager.lines.clear()
        await eventually(lambda: manager.has("WATCHDOG=1", "STATUS=ready"))
        status.stop(5)
        await eventually(lambda: manager.has("STOPPING=1", "EXTEND_TIMEOUT_USEC=35000000"))
        status.close()


# -- the command ---------------------------------------------------------------------------------------

WORKERS = """
import time
from oban import Worker

class Hangs(Worker, name="hangs"):
    async def process(self, job):
        time.sleep(3600)
"""


@contextmanager
def service(url: URL, manager: Manager, folder: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    (folder / "service_workers.py").write_text(WORKERS)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": "500000",
        "OBAN_DATABASE_URL": render(url),
    }
    command = [sys.executable, "-m", "oban", "start", "--import", "service_workers", *arguments]
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.slow)])
async def test_a_service_is_ready_pings_and_stops(
    url: URL, manager: Manager, tmp_path: Path, processes: str
) -> None:
    arguments = ["--processes", processes, "--shutdown-grace-period", "0"]
    with service(url, manager, tmp_path, *arguments) as process:
        await eventually(lambda: manager.has("READY=1", "STATUS=ready", "WATCHDOG=1"), 30)
        assert manager.lines.count("READY=1") == 1
        process.send_signal(signal.SIGTERM)
        await eventually(lambda: manager.has("STOPPING=1", "EXTEND_TIMEOUT_USEC="))
        assert await asyncio.to_thread(process.wait, 30) == 0


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_service_whose_event_loop_hangs_is_not_pinged_any_more(
    sqlite_url: URL, manager: Manager, tmp_path: Path, processes: str
) -> None:
    with service(sqlite_url, manager, tmp_path, "--processes", processes):
        await eventually(lambda: manager.has("READY=1"), 30)
        async with Oban(sqlite_url) as client:
            pids = [node.pid for node in await client.list_nodes()]
            await client.enqueue(Job(worker="hangs"))
        try:
            await eventually(lambda: manager.has("WATCHDOG=1") and manager.is_blocked(), 30)
            manager.receive()
            # Four pings would be due. There is no condition for "nothing happens any more".
            await asyncio.sleep(1)
            assert "WATCHDOG=1" not in manager.receive()
        finally:
            # A node that hangs does not notice the end of its supervisor.
            for pid in pids:
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
