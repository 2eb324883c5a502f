"""Workers with `executor="process"` run in child processes, end in one outcome, and leave nothing behind."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, text

from oban import Job, JobState, Oban, Worker
from oban.errors import ConfigError
from oban.runner.processes import child
from tests.runner.process_workers import InProcess, Limited, Plain, Unmade, add
from tests.runner.processes import lives, written
from tests.support.internals import pretend_to_prepare
from tests.support.jobs import reaches, row_of
from tests.support.options import FAST_POLLING
from tests.support.waiting import eventually

pytestmark = pytest.mark.execution


def made(cls: type[Any]) -> type[Worker]:
    """The class that @worker made, typed as the worker that it is now."""
    assert issubclass(cls, Worker)
    return cls


#: Child processes that tests of other modules have left, such as the fork server of the fault tests.
earlier: set[int] = set()


@pytest.fixture(autouse=True)
def look_at_earlier_children() -> None:
    earlier.clear()
    earlier.update(children())


def children() -> set[int]:
    """The child processes of this process, without the earlier ones."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        # A thread can end at any moment.
        with contextlib.suppress(FileNotFoundError):
            found.update(map(int, (task / "children").read_text().split()))
    return found - earlier


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def note(tmp_path: Path) -> Path:
    return tmp_path / "note"


async def wait_for_note(note: Path, text: str) -> None:
    await eventually(lambda: note.read_text() == text)


async def recorded(oban: Oban, job: Job) -> Any:
    return (await reaches(oban, job, JobState.COMPLETED)).meta["return"]


async def failed(oban: Oban, job: Job) -> str:
    row = await reaches(oban, job, JobState.RETRYABLE)
    (entry,) = row.errors
    return str(entry["error"])


def waiting() -> list[str]:
    """The threads that wait for child processes."""
    return [thread.name for thread in threading.enumerate() if thread.name == "oban-child"]


@pytest.fixture
async def oban(sqlite_url: URL) -> AsyncIterator[Oban]:
    """A node that must leave no process behind. SQLite only, as processes do not depend on the database."""
    async with Oban(sqlite_url, queues={"default": 4}, node="here", **FAST_POLLING) as running:
        yield running
    assert (children(), waiting()) == (set(), [])


async def test_a_job_in_a_process_sees_itself(oban: Oban) -> None:
    args = {"do": "look", "deep": [1.5, None, {"ü": "🎉"}]}
    job = await oban.enqueue(InProcess.new(args, meta={"m": 1}, tags=["a"], max_attempts=7))
    seen = await recorded(oban, job)
    row = await row_of(oban, job)
    assert seen.pop("pid") not in (os.getpid(), 0)
    assert seen == {
        "current": True,
        "cancelled": False,
        "args": args,
        "meta": {"m": 1},
        "tags": ["a"],
        "state": "executing",
        "attempt": [1, 7],
        "errors": 0,
        "attempted_by": row.attempted_by,
        "times": [True, True],
        "id": job.id,
    }


async def test_functions_and_plain_classes_run_in_processes_that_are_used_again(oban: Oban) -> None:
    total, pid, name = await recorded(oban, await oban.enqueue(add.new(2, b=3)))
    assert (total, name) == (5, "tests.runner.process_workers.add")
    assert pid != os.getpid()
    assert await recorded(oban, await oban.enqueue(made(Plain).new())) == pid
    # A job sees nothing of the job before it.
    await recorded(oban, await oban.enqueue(InProcess.new({"do": "look"})))
    assert await recorded(oban, await oban.enqueue(InProcess.new({"do": "pid"}))) == [pid, "none"]


async def test_a_key_that_another_program_has_stored_as_bytes_goes_to_no_process(oban: Oban) -> None:
    job = await oban.enqueue(InProcess.new({"do": "pid"}, queue="later"))
    async with oban.engine.begin() as connection:
        columns = {"unique_key": b"\xff", "unique_rule": b"\xff", "queue": "default"}
        sets = ", ".join(f"{column} = :{column}" for column in columns)
        await connection.execute(text(f"UPDATE oban_jobs SET {sets}"), columns)
    assert await recorded(oban, job)


async def test_a_renamed_function_runs_in_a_process_and_snoozes_with_meta(oban: Oban) -> None:
    job = await oban.enqueue(Job(worker="tests.renamed", args={"page": 2}, meta={"kept": 1}))
    row = await reaches(oban, job, JobState.SCHEDULED)
    assert row.meta == {"kept": 1, "page": 2, "none": None, "snoozed": 1}


async def test_a_backoff_gets_the_exception_of_a_process_and_can_end_the_job(oban: Oban) -> None:
    row = await reaches(oban, await oban.enqueue(InProcess.new({"do": "no more"})), JobState.DISCARDED)
    assert row.attempt == 1
    assert "Unmakeable: no more" in row.errors[0]["error"]


async def test_there_are_as_many_processes_as_jobs_run_at_once(oban: Oban, tmp_path: Path) -> None:
    notes = [tmp_path / str(n) for n in range(4)]
    jobs = await oban.enqueue_many([InProcess.new({"do": "poll", "note": str(note)}) for note in notes])
    pids = {await written(note) for note in notes}
    assert len(pids) == 4
    await oban.cancel_many_jobs(jobs)
    for note in notes:
        await wait_for_note(note, "told")
    enqueued = await oban.enqueue_many([InProcess.new({"do": "pid"}) for _ in range(12)])
    assert {str((await recorded(oban, job))[0]) for job in enqueued} <= pids


#: What a job does in its process, and the resulting state with an error or with meta.
ENDINGS: list[tuple[dict[str, Any], JobState, Any]] = [
    ({"do": "nothing"}, JobState.COMPLETED, {}),
    ({"do": "later"}, JobState.COMPLETED, {"recorded": True, "return": "awaited"}),
    ({"do": "large"}, JobState.COMPLETED, {"recorded": True, "return": ["x" * 1000] * 2000}),
    ({"do": "cancel"}, JobState.CANCELLED, "no such account"),
    ({"do": "snooze"}, JobState.SCHEDULED, {"snoozed": 1}),
    ({"do": "unserialisable"}, JobState.RETRYABLE, "Record is not JSON: set"),
    ({"do": "raise", "error": "exit"}, JobState.RETRYABLE, "SystemExit: 3"),
    ({"do": "raise", "error": "interrupt"}, JobState.RETRYABLE, "KeyboardInterrupt"),
    ({"do": "raise", "error": "value"}, JobState.RETRYABLE, "ValueError: bad\ufffd"),
    ({"do": "timeout error"}, JobState.RETRYABLE, "TimeoutError: its own"),
    ({"do": "die", "code": 0}, JobState.RETRYABLE, "InProcess ended with exit code 0"),
    ({"do": "die", "code": 3}, JobState.RETRYABLE, "InProcess ended with exit code 3"),
    ({"do": "signal", "signal": 9}, JobState.RETRYABLE, "was ended by signal 9 (SIGKILL)"),
    ({"do": "signal", "signal": 6}, JobState.RETRYABLE, "was ended by signal 6 (SIGABRT)"),
    ({"do": "segfault"}, JobState.RETRYABLE, "was ended by signal 11 (SIGSEGV)"),
    ({"do": "close"}, JobState.RETRYABLE, "ChildProcessError: the child process"),
]


async def test_whatever_a_job_does_to_its_process_is_one_outcome(oban: Oban) -> None:
    jobs = await oban.enqueue_many([InProcess.new(args) for args, _, _ in ENDINGS])
    for job, (args, state, expected) in zip(jobs, ENDINGS, strict=True):
        row = await reaches(oban, job, state, timeout=20)
        if isinstance(expected, dict):
            assert (row.meta, row.errors) == (expected, [])
        else:
            (entry,) = row.errors
            assert expected in entry["error"], args
            assert entry["attempt"] == row.attempt == 1
    # The node continues.
    await recorded(oban, await oban.enqueue(InProcess.new({"do": "pid"})))


async def test_the_traceback_of_a_job_in_a_process_comes_back(oban: Oban) -> None:
    text = await failed(oban, await oban.enqueue(InProcess.new({"do": "raise", "error": "value"})))
    assert text.startswith("Traceback")
    assert "process_workers.py" in text


async def test_the_log_names_the_first_exception_of_a_group_in_a_process(
    oban: Oban, caplog: pytest.LogCaptureFixture
) -> None:
    await failed(oban, await oban.enqueue(InProcess.new({"do": "raise", "error": "group"})))
    (line,) = [record.getMessage() for record in caplog.records if record.name == "oban.executor"]
    assert line.endswith("s: ExceptionGroup: g (1 sub-exception): KeyError: 'order'")


async def test_a_process_that_takes_too_long_is_really_killed(oban: Oban, note: Path) -> None:
    job = await oban.enqueue(Limited.new({"do": "wait", "note": str(note)}))
    pid = int(await written(note))
    assert await failed(oban, job) == (
        "TimeoutError: tests.runner.process_workers.Limited timed out after 0.3 s"
    )
    assert not lives(pid)
    again = await recorded(oban, await oban.enqueue(InProcess.new({"do": "pid"})))
    assert again[0] != pid


async def test_what_a_killed_process_has_started_dies_too(oban: Oban, note: Path) -> None:
    job = await oban.enqueue(Limited.new({"do": "family", "note": str(note)}))
    pids = [int(pid) for pid in (await written(note)).split()]
    assert "timed out" in await failed(oban, job)
    await eventually(lambda: not any(lives(pid) for pid in pids))


async def test_the_death_of_a_process_with_children_is_noticed_at_once(oban: Oban, note: Path) -> None:
    job = await oban.enqueue(InProcess.new({"do": "family", "note": str(note), "code": 4}))
    assert "ended with exit code 4" in await failed(oban, job)
    pids = [int(pid) for pid in (await written(note)).split()]
    await eventually(lambda: not any(lives(pid) for pid in pids))


async def test_a_job_in_a_process_learns_that_it_was_cancelled(oban: Oban, note: Path) -> None:
    job = await oban.enqueue(InProcess.new({"do": "poll", "note": str(note)}))
    await written(note)
    await oban.cancel_job(job)

    async def appended() -> bool:
        return bool((await row_of(oban, job)).errors)

    await eventually(appended)
    row = await row_of(oban, job)
    assert row.state is JobState.CANCELLED
    assert [entry["error"] for entry in row.errors] == ["saw it"]
    # The next job of this process was not cancelled.
    assert (await recorded(oban, await oban.enqueue(InProcess.new({"do": "look"}))))["cancelled"] is False


async def test_an_idle_process_that_was_killed_costs_no_job_anything(oban: Oban) -> None:
    pid, _ = await recorded(oban, await oban.enqueue(InProcess.new({"do": "pid"})))
    os.kill(pid, signal.SIGKILL)
    job = await oban.enqueue(InProcess.new({"do": "pid"}))
    assert (await recorded(oban, job))[0] != pid
    assert (await row_of(oban, job)).attempt == 1


async def test_a_process_does_not_obey_signals_that_are_meant_for_the_node(oban: Oban) -> None:
    assert await recorded(oban, await oban.enqueue(InProcess.new({"do": "signals"}))) == "True"


async def test_a_worker_that_cannot_be_made_or_imported_in_a_process_fails(
    oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OBAN_TEST_NODE", str(os.getpid()))

    class Local(Worker, executor="process"):
        def process(self, job: Job) -> None:
            return None

    assert "RuntimeError: not here" in await failed(oban, await oban.enqueue(Unmade.new()))
    text = await failed(oban, await oban.enqueue(Local.new()))
    assert text.startswith("UnknownWorker: a child process cannot find")
    assert "must be defined at the top level of a module" in text


async def test_the_loop_is_free_while_a_process_starts_and_dies(oban: Oban) -> None:
    in_loop: list[str] = []
    loop_thread = threading.get_ident()

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event in ("subprocess.Popen", "os.fork") and threading.get_ident() == loop_thread:
            in_loop.append(event)

    sys.addaudithook(audit)
    for args in ({"do": "nothing"}, {"do": "die", "code": 1}, {"do": "nothing"}):
        job = await oban.enqueue(InProcess.new(args))
        await reaches(oban, job, JobState.COMPLETED, JobState.RETRYABLE)
    assert in_loop == []


async def test_a_stop_lets_jobs_in_processes_finish(url: URL) -> None:
    async with Oban(url, queues={"default": 2}) as oban:
        job = await oban.enqueue(InProcess.new({"do": "pid"}))
        await reaches(oban, job, JobState.EXECUTING)
    async with Oban(url) as client:
        assert (await row_of(client, job)).state is JobState.COMPLETED
    assert children() == set()


@pytest.mark.parametrize(("linger", "patience"), [(0, 3), (600, 8)], ids=["ends", "stays"])
async def test_a_job_in_a_process_that_outlasts_the_grace_period_is_told_and_goes_back(
    url: URL, note: Path, linger: int, patience: float
) -> None:
    async with Oban(url, queues={"default": 2}, shutdown_grace_period=0) as oban:
        job = await oban.enqueue(InProcess.new({"do": "poll", "note": str(note), "linger": linger}))
        pid = int(await written(note))
        began = time.monotonic()
        await oban.stop()
        assert time.monotonic() - began < patience
        assert not lives(pid)
        assert children() == set()
        assert await written(note) == "told"
    async with Oban(url) as client:
        row = await row_of(client, job)
    assert (row.state, row.attempt, row.errors) == (JobState.AVAILABLE, 0, [])


@pytest.mark.parametrize("times", [1, pytest.param(4, marks=pytest.mark.slow)])
async def test_starting_and_stopping_again_leaves_no_process_and_no_descriptor(
    sqlite_url: URL, times: int
) -> None:
    async def once() -> None:
        async with Oban(sqlite_url, queues={"default": 3}, **FAST_POLLING) as oban:
            await oban.enqueue(InProcess.new({"do": "nothing"}))
            first = await oban.enqueue(InProcess.new({"do": "die", "code": 1}))
            await reaches(oban, first, JobState.RETRYABLE)

    await once()
    before = descriptors()
    for _ in range(times):
        await once()
        assert (children(), waiting()) == (set(), [])
    # The thread of SQLite's driver closes the file a little later.
    await eventually(lambda: descriptors() == before)


def test_a_script_that_a_child_imports_does_not_start_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    child.refuse_to_start()
    pretend_to_prepare(monkeypatch)
    with pytest.raises(ConfigError, match="__main__"):
        child.refuse_to_start()
