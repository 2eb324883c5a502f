"""Starts nodes in processes, and inspects the processes of workers."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import URL

from tests.support.processes import ROOT
from tests.support.waiting import eventually, within


class Node:
    """A process that runs `tests.runner.node`."""

    def __init__(self, process: Process, ledger: Path) -> None:
        self.process = process
        self.ledger = ledger

    async def prints(self, word: str) -> None:
        """Wait until it prints this line."""
        assert self.process.stdout is not None
        line = await within(self.process.stdout.readline(), 30)
        assert line.decode().strip() == word

    def ran(self) -> list[int]:
        """The ids of the jobs that it ran. The list is complete once the node has stopped."""
        return [int(line) for line in self.ledger.read_text().split()]

    async def stop(self) -> None:
        """Stop the node as in production, and check that nothing went wrong."""
        _, errors = await within(self.process.communicate(b""), 20)
        assert (self.process.returncode, errors.decode()) == (0, "")


@asynccontextmanager
async def node(url: URL, ledger: Path, *, limit: int = 10, poll_interval: float = 1.0) -> AsyncIterator[Node]:
    """Start a node, and stop it at the end, or kill it after an error."""
    rendered = url.render_as_string(hide_password=False)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.runner.node"),
        *(rendered, str(ledger), str(limit), str(poll_interval)),
        cwd=ROOT,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        started = Node(process, ledger)
        await started.prints("ready")
        yield started
        if process.returncode is None:
            await started.stop()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def lives(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def written(note: Path, timeout: float = 10.0) -> str:
    """Wait until a job has written to a file, and return the content."""

    def read() -> str:
        return note.read_text() if note.exists() else ""

    text: str = await eventually(read, timeout)
    return text
