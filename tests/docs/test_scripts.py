"""The scripts of `docs/frameworks/scripts.md` run as files in this process, and end with their exit codes."""

import asyncio
import runpy
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL

from oban import Job, JobState, Oban, SyncOban
from tests.docs.snippets import fenced
from tests.docs.stage import Page
from tests.docs.written_project import file_name
from tests.support.schema import render

DOCUMENT = "docs/frameworks/scripts.md"
LINES = [line for block in fenced(DOCUMENT, "console") for line in block.splitlines()]
#: The arguments of Python in the commands of the page, and what these print.
ENQUEUE, AGAIN, COUNT, RUN_DUE = (line.split()[2:] for line in LINES if line.startswith("$ python "))
PRINTED = [line for line in LINES if not line.startswith("$ ")]

#: Runs a script with arguments; returns its exit code or last words, and what it has printed.
Run = Callable[..., tuple[object, str]]


@pytest.fixture
def oban(sqlite_url: URL) -> Iterator[SyncOban]:
    with SyncOban(sqlite_url.set(drivername="sqlite")) as client:
        yield client


@pytest.fixture
def run(
    sqlite_url: URL,
    own_registry: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Run]:
    for snippet in Page("frameworks/scripts.md").snippets:
        name = file_name(snippet)
        assert name is not None
        (tmp_path / name).write_text(snippet.code)
    (tmp_path / "orders.csv").write_text("A-1\nA-2\nA-3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DATABASE_URL", render(sqlite_url.set(drivername="sqlite")))

    def run(script: str, *arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        code: object = 0
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            code = end.code
        return code, capsys.readouterr().out

    yield run
    sys.modules.pop("jobs", None)


@contextmanager
def node(url: URL) -> Iterator[None]:
    """A node in another thread."""
    finished = threading.Event()

    async def main() -> None:
        async with Oban(url.set(drivername="sqlite+aiosqlite"), queues={"imports": 1}):
            await asyncio.to_thread(finished.wait)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def test_a_script_enqueues_one_job_and_another_one_runs_it(run: Run, oban: SyncOban) -> None:
    assert [run(*ENQUEUE), run(*AGAIN)] == [(0, f"{line}\n") for line in PRINTED]
    assert run(*RUN_DUE) == (0, "")
    (job,) = oban.list_jobs()
    assert (job.state, job.recorded) == (JobState.COMPLETED, 3)


def test_a_script_that_waits_in_vain_cancels_its_job(run: Run, oban: SyncOban) -> None:
    assert run(*COUNT) == (3, "")
    assert [job.state for job in oban.list_jobs()] == [JobState.CANCELLED]


def test_a_script_prints_the_result_or_ends_with_the_error(run: Run, oban: SyncOban) -> None:
    with node(oban.engine.url):
        assert run("count.py", "orders.csv", "60") == (0, "3\n")
        code, _ = run("count.py", "missing.csv", "60")
    assert "No such file or directory: 'missing.csv'" in str(code)


def test_a_job_that_fails_makes_the_script_fail(run: Run, oban: SyncOban) -> None:
    oban.enqueue(Job(worker="jobs.Count", queue="imports", args={"path": "missing.csv"}))
    assert run(*RUN_DUE) == (1, "")
    assert [job.state for job in oban.list_jobs()] == [JobState.RETRYABLE]


def test_a_database_that_is_missing_ends_the_script_with_a_message(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite:///other.db")
    code, printed = run(*ENQUEUE)
    assert (printed, "oban install" in str(code)) == ("", True), code
