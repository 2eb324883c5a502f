"""`oban start --health-port`: what it answers while nodes start, run, fail and stop."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import URL

from oban import Job, JobState, NodeCheck, Oban
from oban.cli import main, reports
from oban.cli.reports import Reporter, Reports, combined
from oban.cli.status import Status
from tests.support.jobs import reaches
from tests.support.processes import ROOT
from tests.support.schema import render
from tests.support.starts import make_impatient, record_starts
from tests.support.waiting import eventually

READY = NodeCheck(True, True)
STARTING = NodeCheck(True, False, ("the node is starting",))
BLOCKED = NodeCheck(False, False, ("blocked",))
WORKERS = """
import asyncio
from oban import Worker

class Slow(Worker, name="slow"):
    async def process(self, job):
        await asyncio.sleep(3600)
"""


class Node:
    """An `oban start --health-port 0`, and its answers."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.printed = ""

    def listen(self) -> None:
        """Read what it prints until it listens."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.printed += line
            if found := re.search(r"the health endpoints are (http://\S+)/live and /ready", line):
                self.url = found[1]
                return
        raise AssertionError(self.printed)

    async def ask(self, path: str) -> tuple[int, dict[str, Any]]:
        return await asyncio.to_thread(self._ask, path)

    def _ask(self, path: str) -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    async def becomes_ready(self) -> None:
        async def is_ready() -> bool:
            return (await self.ask("/ready"))[0] == 200

        await eventually(is_ready, 30)

    async def has(self, problem: str) -> None:
        async def found() -> bool:
            status, document = await self.ask("/ready")
            return status == 503 and any(problem in text for text in document["problems"])

        await eventually(found, 30)


@contextmanager
def started(url: URL | str, folder: Path, *arguments: str) -> Iterator[Node]:
    (folder / "health_workers.py").write_text(WORKERS)
    database = url if isinstance(url, str) else render(url)
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "OBAN_DATABASE_URL": database}
    environment["OBAN_HEALTH_PORT"] = "0"
    command = [sys.executable, "-m", "oban", "start", "--import", "health_workers", *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        try:
            node = Node(process)
            node.listen()
            yield node
        finally:
            process.kill()


async def test_a_node_answers_from_its_start_to_its_stop(url: URL, tmp_path: Path) -> None:
    with started(url, tmp_path, "--shutdown-grace-period", "30") as node:
        assert (await node.ask("/live"))[0] == 200
        await node.becomes_ready()
        assert await node.ask("/ready") == (200, {"ready": True, "problems": []})
        assert await node.ask("/") == (200, {"live": True, "ready": True, "problems": []})
        async with Oban(url) as client:
            job = await client.enqueue(Job(worker="slow"))
            await reaches(client, job, JobState.EXECUTING)
            node.process.send_signal(signal.SIGTERM)
            await node.has("the node is stopping")
            problems = ["the node is stopping"]
            assert await node.ask("/live") == (200, {"live": True, "problems": problems})
            assert await node.ask("/") == (503, {"live": True, "ready": False, "problems": problems})
            node.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(node.process.wait, 30) == 0


@pytest.mark.slow
async def test_a_node_that_waits_for_its_database_is_live_and_keeps_its_password(tmp_path: Path) -> None:
    url = "postgresql+asyncpg://me:s3cret@127.0.0.1:1/none"
    with started(url, tmp_path) as node:
        await node.has("the node is starting: the database cannot be reached")
        status, document = await node.ask("/live")
        assert (status, document["live"]) == (200, True)
        assert "s3cret" not in json.dumps(document)


@pytest.mark.slow
async def test_a_supervisor_answers_for_all_of_its_nodes(sqlite_url: URL, tmp_path: Path) -> None:
    make_impatient(tmp_path)
    with started(sqlite_url, tmp_path, "--processes", "2", "--node", "web") as node:
        await node.becomes_ready()
        async with Oban(sqlite_url) as client:
            pids = {each.node: each.pid for each in await client.list_nodes()}
        assert pids.keys() == {"web-1", "web-2"}
        assert pids["web-2"] is not None
        # It reports nothing while it is stopped.
        os.kill(pids["web-2"], signal.SIGSTOP)
        await node.has("web-2: the process has reported nothing for more than 3 s")
        assert (await node.ask("/live"))[0] == 503
        os.kill(pids["web-2"], signal.SIGCONT)
        await node.becomes_ready()
        os.kill(pids["web-2"], signal.SIGKILL)
        await node.has("web-2: ")
        # The supervisor starts it again.
        assert (await node.ask("/live"))[0] == 200
        await node.becomes_ready()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_port_in_use_ends_the_command_with_a_clear_error(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = record_starts(monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        variables = {"OBAN_HEALTH_PORT": str(port), "OBAN_PROCESSES": str(processes)}
        arguments = ["start", "--database-url", "sqlite+aiosqlite:///a.db"]
        result = CliRunner().invoke(main, arguments, env=variables)
    assert (result.exit_code, made) == (1, [])
    assert result.stderr == (
        f"Error: cannot listen at http://127.0.0.1:{port}: another process uses this port. Stop it, or choose"
        " another port\n"
    )


# -- the parts ------------------------------------------------------------------------------------------


def test_a_status_is_not_ready_before_there_is_a_node_and_while_it_cannot_start_or_stops() -> None:
    status = Status()
    assert status.now() == STARTING
    status.check = lambda: READY
    assert status.now() == READY
    status.problem = "no database"
    assert status.now() == NodeCheck(True, False, ("no database",))
    status.problem = None
    status.stop(1)
    assert status.now() == NodeCheck(True, False, ("the node is stopping",))


def test_nodes_are_live_and_ready_if_each_one_is() -> None:
    assert combined({"a": READY, "b": READY}) == READY
    assert combined({"a": READY, "b": STARTING}) == NodeCheck(True, False, ("b: the node is starting",))
    assert combined({"a": BLOCKED, "b": STARTING}) == NodeCheck(
        False, False, ("a: blocked", "b: the node is starting")
    )


def test_reports_arrive_in_any_pieces_and_garbage_is_ignored() -> None:
    near, far = socket.socketpair()
    with near, far:
        Reporter(far).report(BLOCKED)
        sent = near.recv(1000)
    received = Reports()
    assert received.check() == STARTING
    for position in range(len(sent)):
        received.receive(sent[position : position + 1])
    assert received.check() == BLOCKED
    received.receive(b'{"live": tr\n[]\n7\n{"live": true}\n' + b"x" * 200_000)
    assert received.check() == BLOCKED
    received.receive(b"\n" + sent.replace(b"false", b"true"))
    assert received.check() == NodeCheck(True, True, ("blocked",))


def test_a_node_that_reports_nothing_any_more_is_not_live(monkeypatch: pytest.MonkeyPatch) -> None:
    received = Reports()
    received.receive(b'{"live": true, "ready": true, "problems": []}\n')
    assert received.check() == READY
    monkeypatch.setattr(reports, "REPORT_TIMEOUT", -1.0)
    assert not received.check().is_live


def test_a_report_is_lost_where_nobody_reads() -> None:
    near, far = socket.socketpair()
    far.setblocking(False)
    with near, far:
        for _ in range(10_000):
            Reporter(far).report(BLOCKED)
        near.close()
        Reporter(far).report(BLOCKED)
