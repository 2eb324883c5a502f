"""Workers with `executor="process"`: what they see, how they end, and that nothing of them is left."""

import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from oban import Job, JobState, Oban, Worker
from tests.runner.support import FAST_POLLING, reaches
from tests.waiting import eventually


def made(cls: type[Any]) -> type[Worker]:
    """What @worker has made of a class, which a type checker cannot see."""
    assert issubclass(cls, Worker)
    return cls


def lives(pid: int) -> bool:
    """Whether a process exists that is not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children() -> set[int]:
    """The processes that threads of this one have started."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def note(tmp_path: Path) -> Path:
    return tmp_path / "note"


async def noted(note: Path) -> str:
    """What a job writes into the file, once it has."""

    def read() -> str:
        return note.read_text() if note.exists() else ""

    text: str = await eventually(read)
    return text


async def recorded(oban: Oban, job: Job) -> Any:
    return (await reaches(oban, job, JobState.COMPLETED)).meta["return"]


async def failed(oban: Oban, job: Job) -> str:
    row = await reaches(oban, job, JobState.RETRYABLE)
    (entry,) = row.errors
    return str(entry["error"])


@pytest.fixture
async def oban(url: URL) -> AsyncIterator[Oban]:
    before = children(), threading.active_count()
    async with Oban(url, queues={"default": 4}, node="here", **FAST_POLLING) as running:
        yield running
    assert (children(), threading.active_count()) == before
