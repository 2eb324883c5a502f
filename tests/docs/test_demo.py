"""The demo runs as a user would run it, on every database, and its check notices every kind of fault."""

import asyncio
import copy
import importlib
import os
import pty
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, select

from oban import Job, JobState, Oban, Worker

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = 24


class Foreign(Worker, queue="foreign"):
    async def process(self, job: Job) -> None: ...


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of all kinds, and some that the demo must skip."""
    made = tmp_path / "files"
    (made / "sub").mkdir(parents=True)
    contents = [b"", b"no newline", b"a\r\nb\r\n", b"a\rb\n", bytes(range(256)), "grün\n".encode()]
    for n in range(FILES - 2):
        (made / f"{n:02}.txt").write_bytes(contents[n % len(contents)] + b"%d" % n)
    (made / "sub" / "[bold]odd name.py").write_text("x\ny\n")
    (made / "sub" / "zweite für später.py").write_text("x" * 100_000)
    for name in (".hidden", "__pycache__", "site-packages"):
        (made / name).mkdir()
        (made / name / "skipped.txt").write_text("skipped")
    return made


def command(folder: Path, url: URL | None) -> list[str]:
    options = ["--folder", str(folder)]
    if url is not None:
        options += ["--database-url", url.render_as_string(hide_password=False)]
    return [sys.executable, str(EXAMPLES / "demo.py"), *options]


def run(folder: Path, url: URL | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder, url), capture_output=True, text=True, check=False)


def squeezed(output: str) -> str:
    """Remove the borders of tables and repeated spaces."""
    return re.sub(r"\s+", " ", re.sub(r"[│┃]", " ", output))


def assert_shows_success(output: str) -> None:
    shown = squeezed(output)
    assert f"enqueued {FILES} jobs" in shown
    assert "cancelled 3 jobs while they were executing" in shown
    assert f"{FILES - 1} of {FILES - 1} jobs have ended" in shown
    table = shown[shown.index("What happened") :]
    assert re.search(r" retried 3 completed 3 \S+: OSError: the disk is busy, attempt 2 ", table)
    assert re.search(r" cancelled 3 cancelled 1 \S+: stopped at a safe point, after \d+ rounds ", table)
    assert re.search(r" rescheduled 3 completed 1 \S+: enqueued [\d:]+, completed [\d:]+ ", table)
    assert re.search(r" deleted 1 deleted ", table)
    assert re.search(rf" completed {FILES - 10} completed 1 ", table)
    assert f" {FILES - 4} files with " in table
    assert "Everything is correct" in table
    assert "WRONG" not in table


def jobs_of(url: URL) -> list[Job]:
    async def read() -> list[Job]:
        async with Oban(url) as oban:
            return await oban.list_jobs()

    return asyncio.run(read())


def test_the_demo_creates_its_tables_and_succeeds_on_an_empty_database(empty_url: URL, folder: Path) -> None:
    done = run(folder, empty_url)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert_shows_success(done.stdout)
    names = [Path(job.args["path"]).name for job in jobs_of(empty_url)]
    assert len(names) == len(set(names)) == FILES - 1
    assert "skipped.txt" not in names


@pytest.mark.parametrize("factory", ["postgresql"], indirect=True)
async def test_the_demo_runs_beside_other_jobs_without_touching_them(
    url: URL, oban: Oban, folder: Path
) -> None:
    waiting = await oban.enqueue(Foreign.new({"n": 1}))
    later = await oban.enqueue(Foreign.new({"n": 2}, schedule_in=3600))
    done = run(folder, url)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert_shows_success(done.stdout)
    foreign = await oban.list_jobs(select(Job).where(Job.queue == "foreign").order_by(Job.id))
    assert [(job.id, job.state, job.attempt) for job in foreign] == [
        (waiting.id, JobState.AVAILABLE, 0),
        (later.id, JobState.SCHEDULED, 0),
    ]


@pytest.mark.parametrize("factory", ["sqlite"], indirect=True)
def test_ctrl_c_stops_the_demo_and_leaves_no_job_that_would_still_run(empty_url: URL, folder: Path) -> None:
    process = subprocess.Popen(
        command(folder, empty_url), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    # After this line, the demo waits for the retried jobs for about a second.
    while "updated" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    try:
        output, errors = process.communicate()
    finally:
        process.kill()
    assert (process.returncode, errors) == (130, ""), output + errors
    assert "interrupted: cancelled " in output
    left = {job.state for job in jobs_of(empty_url)}
    assert left <= {JobState.COMPLETED, JobState.CANCELLED}


@pytest.mark.parametrize("factory", ["sqlite"], indirect=True)
@pytest.mark.slow
def test_the_dashboard_shows_jobs_that_come_and_go_until_ctrl_c(empty_url: URL, folder: Path) -> None:
    process = subprocess.Popen(
        [*command(folder, empty_url), "--web", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        while "stays at" not in (line := process.stdout.readline()):
            assert process.poll() is None, lines
            lines.append(line)
        address = re.search(r"http://\S+", line)
        assert address is not None
        assert "Everything is correct" in squeezed("".join(lines))
        with urllib.request.urlopen(address[0]) as page:
            assert "Overview" in page.read().decode()
        process.send_signal(signal.SIGINT)
        process.communicate()
    finally:
        process.kill()
    assert process.returncode == 130
    assert {job.queue for job in jobs_of(empty_url)} >= {"mail"}


def test_in_a_terminal_the_demo_needs_no_options_but_a_folder_and_draws_a_live_table(folder: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "50"}
    process = subprocess.Popen(command(folder, None), stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    read = bytearray()
    try:
        while chunk := os.read(ours, 65536):
            read += chunk
    except OSError:  # raised when the other side of the terminal is closed
        pass
    finally:
        os.close(ours)
        code = process.wait()
    output = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", read.decode())
    assert code == 0, output
    assert_shows_success(output)
    assert re.search(r" state files-\w+ flaky-\w+ endless-\w+ all ", squeezed(output))
    # The last state of the live table.
    assert f" completed {FILES - 7} 3 0 {FILES - 4} " in squeezed(output)
    assert " cancelled 0 0 3 3 " in squeezed(output)


def test_too_small_a_folder_is_refused_with_a_clear_message(
    demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", command(tmp_path, None)[1:])
    assert demo.main() == 1
    assert capsys.readouterr().err == f"demo: {tmp_path} has 0 files; at least 12 are needed\n"


def test_an_unreachable_database_is_named_without_the_password(
    demo: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = URL.create("postgresql+asyncpg", "me", "secret", "127.0.0.1", 1, "mine")
    monkeypatch.setattr("sys.argv", command(folder, url)[1:])
    assert demo.main() == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("demo: ")
    assert "127.0.0.1" in printed.err
    assert "secret" not in printed.err + printed.out


def test_a_worker_that_records_something_wrong_makes_the_demo_fail(folder: Path) -> None:
    planted = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
import demo
def process(self, job):
    return demo.Record({{"lines": 1, "bytes": 2, "sha256": "3"}})
demo.ReadFile.process = process
sys.exit(demo.main())
"""
    arguments = [sys.executable, "-c", planted, *command(folder, None)[2:]]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, ""), done.stdout + done.stderr
    assert "WRONG: job" in done.stdout
    assert f"{FILES - 4} problems were found" in done.stdout
    assert "Everything is correct" not in done.stdout


# -- the check on its own ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield importlib.import_module("demo")


@pytest.fixture(scope="module")
def support(demo: Any) -> Any:
    return importlib.import_module("demo_support")


@pytest.fixture
def plan(demo: Any, support: Any, folder: Path) -> Any:
    plan = demo.make_plan(support.find_files(folder, at_least=12))
    for id_, job in enumerate((job for kind in plan.values() for job in kind), 1):
        job.id = id_
    return plan


@pytest.fixture
def rows(plan: Any, support: Any) -> dict[str, list[Job]]:
    """The rows of a successful run, by kind."""
    now = datetime.now(UTC)
    made: dict[str, list[Job]] = {}
    for kind, jobs in plan.items():
        for planned in jobs:
            job = Job(worker="demo", args=copy.deepcopy(planned.args), scheduled_at=now)
            job.id, job.attempt, job.completed_at = planned.id, 1, now + timedelta(seconds=1)
            job.state = JobState.COMPLETED
            job.meta = {"recorded": True, "return": support.measure(Path(job.args["path"]))}
            if kind == "retried":
                job.attempt = 3
                job.errors = [error(attempt) for attempt in (1, 2)]
            if kind == "cancelled":
                job.state, job.completed_at, job.meta = JobState.CANCELLED, None, {}
                job.errors = [{"attempt": 1, "at": "", "error": "stopped at a safe point, after 5 rounds"}]
            if kind != "deleted":
                made.setdefault(kind, []).append(job)
    return made


def error(attempt: int) -> dict[str, Any]:
    text = f"Traceback (most recent call last):\n  …\nOSError: the disk is busy, attempt {attempt}"
    return {"attempt": attempt, "at": "", "error": text}


def problems_of(support: Any, plan: Any, rows: Mapping[str, list[Job]]) -> list[str]:
    found: list[str] = support.check(plan, [job for kind in rows.values() for job in kind])
    return found


def test_the_check_finds_nothing_in_a_successful_run(
    support: Any, plan: Any, rows: dict[str, list[Job]]
) -> None:
    assert problems_of(support, plan, rows) == []


FAULTS: dict[str, tuple[str, Callable[[list[Job]], Any], str]] = {
    "a job is lost": ("completed", lambda jobs: jobs.pop(), "is missing"),
    "a job failed": ("completed", lambda jobs: setattr(jobs[0], "state", JobState.DISCARDED), "is discarded"),
    "a job still runs": (
        "completed",
        lambda jobs: setattr(jobs[0], "state", JobState.EXECUTING),
        "is executing",
    ),
    "a job ran twice": ("completed", lambda jobs: setattr(jobs[0], "attempt", 2), "took 2 attempts"),
    "nothing was recorded": ("completed", lambda jobs: jobs[0].meta.clear(), "recorded None"),
    "lines are wrong": (
        "rescheduled",
        lambda jobs: jobs[0].meta["return"].update(lines=7),
        "recorded {'lines': 7,",
    ),
    "the digest is wrong": ("retried", lambda jobs: jobs[0].meta["return"].update(sha256="0"), "recorded {"),
    "the size is wrong": ("completed", lambda jobs: jobs[0].meta["return"].update(bytes=-1), "recorded {"),
    "an error was not kept": ("retried", lambda jobs: jobs[0].errors.pop(), "has the errors ["),
    "an error is another": ("retried", lambda jobs: jobs[0].errors[0].update(error="?"), "has the errors ["),
    "an error came from nowhere": (
        "completed",
        lambda jobs: jobs[0].errors.append(error(1)),
        "has the errors",
    ),
    "a retried job failed only once": (
        "retried",
        lambda jobs: setattr(jobs[0], "attempt", 2),
        "took 2 attempts",
    ),
    "a cancelled job has no reason": ("cancelled", lambda jobs: jobs[0].errors.clear(), "has the errors []"),
    "a cancelled job was completed": (
        "cancelled",
        lambda jobs: setattr(jobs[0], "state", JobState.COMPLETED),
        "is completed",
    ),
    "a job ran before it was due": (
        "rescheduled",
        lambda jobs: setattr(jobs[0], "scheduled_at", datetime.now(UTC) + timedelta(days=1)),
        "before it was due",
    ),
}


@pytest.mark.parametrize(("kind", "plant", "words"), FAULTS.values(), ids=list(FAULTS))
def test_the_check_notices_when(
    support: Any,
    plan: Any,
    rows: dict[str, list[Job]],
    kind: str,
    plant: Callable[[list[Job]], Any],
    words: str,
) -> None:
    plant(rows[kind])
    found = problems_of(support, plan, rows)
    assert any(f"to be {kind}) " in problem and words in problem for problem in found), found


def test_the_check_notices_a_job_that_was_not_deleted(
    support: Any, plan: Any, rows: dict[str, list[Job]]
) -> None:
    rows["deleted"] = plan["deleted"]
    found = problems_of(support, plan, rows)
    assert any("to be deleted) was not deleted" in problem for problem in found)


def test_the_check_notices_jobs_that_nobody_planned(
    support: Any, plan: Any, rows: dict[str, list[Job]]
) -> None:
    unplanned = Job(worker="demo")
    unplanned.id, unplanned.state = 1000, JobState.COMPLETED
    rows["unplanned"] = [unplanned]
    found = problems_of(support, plan, rows)
    assert found == [
        f"the jobs per state are {{'completed': {FILES - 3}, 'cancelled': 3}}, not "
        f"{{'cancelled': 3, 'completed': {FILES - 4}}}"
    ]
