"""Child processes of nodes that are real processes: in scripts, after Ctrl-C, and when the node is killed."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL

from oban import JobState, Oban
from tests.runner.process_workers import InProcess
from tests.runner.processes import lives, written
from tests.support.jobs import reaches, row_of
from tests.support.processes import ROOT
from tests.support.waiting import eventually, within

pytestmark = pytest.mark.execution


@asynccontextmanager
async def oban_start(url: URL) -> AsyncIterator[Process]:
    """`oban start` in its own process group."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "oban", "start", "--import", "tests.runner.process_workers"),
        *("--database-url", url.render_as_string(hide_password=False)),
        cwd=ROOT,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
def note(tmp_path: Path) -> Path:
    return tmp_path / "note"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
async def test_a_signal_to_all_processes_lets_jobs_finish(sqlite_url: URL, note: Path, how: int) -> None:
    async with Oban(sqlite_url) as client, oban_start(sqlite_url) as process:
        job = await client.enqueue(InProcess.new({"do": "until", "note": str(note)}))
        child = int(await written(note, 30))
        # A terminal signals the group, and some service managers signal every process.
        os.killpg(process.pid, how)
        os.kill(child, how)
        note.with_suffix(".go").touch()
        _, errors = await within(process.communicate(), 20)
        row = await row_of(client, job)
        assert (row.state, row.errors) == (JobState.COMPLETED, [])
        assert process.returncode == 0, errors
        assert b"Traceback" not in errors
        assert not lives(child)


async def test_the_child_processes_of_a_killed_node_end(sqlite_url: URL, note: Path) -> None:
    async with Oban(sqlite_url) as client, oban_start(sqlite_url) as process:
        busy = await client.enqueue(InProcess.new({"do": "family", "note": str(note)}))
        pids = [int(pid) for pid in (await written(note, 30)).split()]
        other = await client.enqueue(InProcess.new({"do": "pid"}))
        pids.append((await reaches(client, other, JobState.COMPLETED, timeout=30)).meta["return"][0])
        assert len(set(pids)) == 3
        process.kill()
        await process.wait()
        await eventually(lambda: not any(lives(pid) for pid in pids), timeout=15)
        assert (await row_of(client, busy)).state is JobState.EXECUTING


async def script(url: URL, *arguments: str, run: Sequence[str] = ("tests/runner/process_script.py",)) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *run),
        *(url.render_as_string(hide_password=False), *arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=PIPE,
        stderr=PIPE,
    )
    output, _ = await within(process.communicate(), 40)
    return output.decode()


async def test_a_worker_can_be_defined_in_the_main_script(sqlite_url: URL) -> None:
    output = await script(sqlite_url)
    assert output == "__main__.InMain completed {'recorded': True, 'return': '__mp_main__'} []\n"


async def test_a_worker_can_be_defined_in_a_main_module(sqlite_url: URL) -> None:
    name = "tests.runner.process_script"
    output = await script(sqlite_url, run=["-m", name])
    assert output == f"{name}.InMain completed {{'recorded': True, 'return': '__mp_main__'}} []\n"


async def test_a_script_without_a_guard_starts_no_second_node(sqlite_url: URL) -> None:
    output = await script(sqlite_url, "unguarded")
    # Its classes were defined before the import failed, so its jobs run.
    assert output.startswith("__main__.InMain completed")
    assert output.count("\n") == 1
