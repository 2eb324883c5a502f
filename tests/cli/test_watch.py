"""`oban start --watch` restarts the node when the code changes, and nothing else ends it but a signal."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL

from oban import Job, JobState, Oban
from oban.cli.watch import Watcher
from oban.errors import ConfigError
from tests.support.commands import node, oban, text, until
from tests.support.waiting import eventually, within

PREFIX = "import socket, sys; link = socket.socket(fileno=int(sys.argv[1]))\n"
#: Minimal nodes: one that runs until it is told to stop, one that waits for two requests, and one that fails.
RUNS = PREFIX + "link.send(b'r'); link.recv(1)"
COUNTS = PREFIX + (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "for n in '012': open('requests', 'w').write(n); link.recv(1) if n != '2' else None\n"
)
FAILS = PREFIX + "sys.exit(1)"


class Recorder(Watcher):
    """A watcher whose node runs a piece of Python."""

    def __init__(self, code: str) -> None:
        self.starts = 0
        super().__init__(lambda name, link: self._command(code, link), "a", dict(os.environ), 0)

    def _command(self, code: str, link: int) -> list[str]:
        self.starts += 1
        return [sys.executable, "-S", "-c", code, str(link)]

    def started(self, number: int) -> Callable[[], bool]:
        return lambda: self.starts >= number


@asynccontextmanager
async def watching(code: str) -> AsyncIterator[Recorder]:
    watcher = Recorder(code)
    running = asyncio.create_task(watcher.run())
    try:
        await eventually(watcher.started(1))
        yield watcher
        watcher.stop()
        await within(running, 15)
    finally:
        running.cancel()


def read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def change(path: str, content: str = "") -> None:
    Path(path).write_text(content)


async def test_a_change_of_a_python_file_replaces_the_node(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "oban")
    async with watching(RUNS) as watcher:
        change("app/workers.py", "one")
        await eventually(watcher.started(2))
        change("app/new.py")
        await eventually(watcher.started(3))
    assert f"watching the Python files in {os.getcwd()}" in caplog.text
    assert "restarting the node: app/workers.py has changed" in caplog.text
    assert "killed" not in caplog.text


async def test_other_files_do_not_count(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "oban")
    os.mkdir(folder / "app" / "__pycache__")
    async with watching(RUNS) as watcher:
        for path in ("app.db", "app/log.txt", "app/__pycache__/workers.py", "app/workers.py"):
            change(path, "new")
        await eventually(watcher.started(2))
    assert "restarting the node: app/workers.py has changed" in caplog.text


async def test_a_node_that_fails_is_started_again_after_the_next_change_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended = "the node ended with exit code 1; it starts again after the next change"
    async with watching(FAILS) as watcher:
        for number in (1, 2, 3):
            await eventually(lambda number=number: caplog.text.count(ended) == number)  # type: ignore[misc]
            assert watcher.starts == number
            change("app/workers.py", str(number))
            await eventually(watcher.started(number + 1))


async def test_each_request_to_stop_reaches_the_node() -> None:
    async with watching(COUNTS) as watcher:
        for number in "01":
            await eventually(lambda number=number: read("requests") == number)  # type: ignore[misc]
            watcher.stop()
        await eventually(lambda: read("requests") == "2")


def test_without_watchfiles_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ConfigError, match=r"pip install 'oban-sqlalchemy\[watch\]'"):
        Recorder(RUNS)


async def test_a_folder_that_cannot_be_watched_ends_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: object, **__: object) -> AsyncIterator[object]:
        raise OSError("OS file watch limit reached")
        yield

    monkeypatch.setattr("watchfiles.awatch", refused)
    with pytest.raises(ConfigError, match=f"cannot watch {os.getcwd()}: OS file watch limit reached"):
        await within(Recorder(RUNS).run(), 15)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--processes", "2"], "--watch runs one node: leave out --processes"),
        (["--lease", "0"], "lease must be at least 0.1"),
    ],
)
def test_wrong_options_end_the_command(arguments: list[str], words: str) -> None:
    result = oban("start", "--database-url", "sqlite://", "--watch", *arguments)
    assert result.returncode == 1
    assert words in result.stderr


@pytest.mark.slow
async def test_a_running_job_gets_the_grace_period_and_later_jobs_get_the_new_code(
    folder: Path, sqlite_url: URL
) -> None:
    code = (folder / "app" / "workers.py").read_text()
    slow_start = code.replace(
        "await asyncio.sleep(job.args", "print('begun', flush=True); await asyncio.sleep(job.args"
    )
    change("app/workers.py", slow_start)
    with node("--database-url", text(sqlite_url), "--import", "app.workers", "--watch") as process:
        async with Oban(sqlite_url) as client:

            async def completed(job: Job) -> Job | None:
                row = await client.get_job(job.id)
                return row if row and row.state is JobState.COMPLETED else None

            await asyncio.to_thread(until, process, "runs default:10")
            brief = await client.enqueue(Job(worker="brief", args={"seconds": 0.5}))
            await asyncio.to_thread(until, process, "begun")
            change("app/workers.py", code + "\nclass Broken(:\n")
            lines = await asyncio.to_thread(until, process, "starts again after the next change")
            assert "SyntaxError" in "".join(lines)
            assert (await eventually(lambda: completed(brief))).attempt == 1
            change("app/workers.py", code.replace("Record(job.args)", "Record('the new code')"))
            echo = await client.enqueue(Job(worker="echo"))
            assert (await eventually(lambda: completed(echo))).meta["return"] == "the new code"
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, 15) == 0
