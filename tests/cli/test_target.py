"""`oban start app.jobs:oban` runs the application's own `Oban`, or the one that its factory returns."""

import asyncio
import importlib
import signal
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL

from oban import Job, JobState, Oban
from oban.cli import main, target
from oban.errors import ConfigError
from tests.support.commands import invoke, node, text, until
from tests.support.commands import oban as command
from tests.support.waiting import eventually

JOBS = """
import asyncio, functools, os
from oban import Oban, Record, SyncOban, Worker, job
from sqlalchemy.ext.asyncio import create_async_engine

URL = os.environ.get("APP_URL", "sqlite+aiosqlite:///app.db")
engine = create_async_engine(URL)
oban = Oban(engine, name="App", node="web", queues={"media": 2}, lease=20, shutdown_grace_period=77)
client = Oban(engine)
sync_oban = SyncOban("sqlite:///app.db")
nothing = None

class Settings:
    queue = oban

async def make():
    # It needs the event loop of the node.
    await asyncio.sleep(0)
    made = Oban(engine, queues={"default": 2})
    made.loop = asyncio.get_running_loop()
    return made

def make_sync():
    return client

cached = functools.cache(make_sync)
bound = functools.partial(lambda value: value, client)

def with_argument(url):
    return Oban(url)

def fails():
    return {}["DATABASE"]

async def fails_later():
    return {}["DATABASE"]

def forgets():
    Oban(engine)

@job
def send():
    raise AssertionError("a job is not a factory")

class Loop(Worker, name="loop"):
    async def process(self, job):
        return Record({"same": asyncio.get_running_loop() is Oban.get_instance().loop})
"""


@pytest.fixture(autouse=True)
def application(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "app" / "jobs.py").write_text(JOBS)
    (folder / "app" / "broken.py").write_text("import app.misspelt\n")
    (folder / "app" / "misspelt.py").write_text("import os\nclass Broken(:\n")
    (folder / "app" / "nested.py").write_text("import os\n\nimport no_such_library\n")
    (folder / "app" / "unset.py").write_text("import os\n\nurl = os.environ['NOT_SET']\n")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    for module in [name for name in sys.modules if name.split(".")[0] == "app"]:
        monkeypatch.delitem(sys.modules, module)


def start(*arguments: str) -> None:
    main(["start", *arguments], standalone_mode=False)


@pytest.mark.parametrize("name", ["client", "make_sync", "make", "cached", "bound", "Settings.queue"])
def test_an_instance_or_what_a_factory_returns_is_run(name: str, started: list[Oban]) -> None:
    start(f"app.jobs:{name}")
    assert started[0].engine is sys.modules["app.jobs"].engine


def test_the_instance_keeps_its_options(started: list[Oban], monkeypatch: pytest.MonkeyPatch) -> None:
    # They are for commands without a TARGET.
    monkeypatch.setenv("OBAN_DATABASE_URL", "postgresql://elsewhere/other")
    monkeypatch.setenv("OBAN_LISTEN_URL", "postgresql://elsewhere/other")
    start("app.jobs:oban")
    options = started[0].options
    assert started[0] is sys.modules["app.jobs"].oban
    assert (options.name, options.node, options.lease, options.listen_url) == ("App", "web", 20, None)
    assert (options.shutdown_grace_period, options.heartbeat_interval) == (77, 5)
    assert {name: queue.limit for name, queue in options.queues.items()} == {"media": 2}


def test_options_of_the_command_line_override_those_of_the_instance(started: list[Oban]) -> None:
    arguments = "--queues a:1 --queues b --node other --lease 8 --shutdown-grace-period 3"
    start("app.jobs:oban", *arguments.split())
    options = started[0].options
    assert (options.name, options.node, options.lease) == ("App", "other", 8)
    # Half of the lease is the most that it can be.
    assert (options.shutdown_grace_period, options.heartbeat_interval) == (3, 2)
    assert {name: queue.limit for name, queue in options.queues.items()} == {"a": 1, "b": 10}


def test_an_instance_without_queues_runs_the_default_queue(started: list[Oban]) -> None:
    start("app.jobs:client")
    assert {name: queue.limit for name, queue in started[0].options.queues.items()} == {"default": 10}


@pytest.mark.parametrize(
    "option",
    ["--database-url sqlite://", "--prefix jobs", "--name App", "--notifier poll", "--listen-url x"],
)
def test_an_option_that_the_instance_has_used_already_is_refused(option: str, started: list[Oban]) -> None:
    with pytest.raises(Exception, match=f"{option.split()[0]} cannot be combined with app.jobs:oban"):
        start("app.jobs:oban", *option.split())
    assert started == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("app.jobs", "'app.jobs' is not MODULE:ATTRIBUTE, such as app.jobs:oban"),
        ("app/jobs.py:oban", "'app/jobs.py:oban' is not MODULE:ATTRIBUTE"),
        ("app.jobs:make()", "is not MODULE:ATTRIBUTE"),
        ("no_such:oban", "No module named 'no_such' in "),
        ("app.jbos:oban", "No module named 'app.jbos'; did you mean app.jobs?"),
        ("app.jobs:obn", "app.jobs has no attribute 'obn'; did you mean oban?"),
        ("app.jobs:queue", "app.jobs has no attribute 'queue'; did you mean oban?"),
        ("app.jobs:Settings.queues", "Settings has no attribute 'queues'; did you mean queue?"),
        ("app.jobs:nothing", "app.jobs:nothing is None, not an Oban"),
        ("app.jobs:engine", "app.jobs:engine is an object of type AsyncEngine, not an Oban"),
        ("app.jobs:send", "app.jobs:send is an object of type FunctionWorker, not an Oban"),
        ("app.jobs:sync_oban", "is a SyncOban, which runs no jobs: use an Oban with an async driver"),
        ("app.jobs:Settings", "is the class Settings, not an instance of Oban"),
        ("app.jobs:forgets", "app.jobs:forgets returned None, not an Oban"),
        ("app.jobs:with_argument", "is called without arguments: missing a required argument: 'url'"),
        ("app.jobs:fails", r"raised KeyError: 'DATABASE' \(app/jobs.py, line 33, in fails\)"),
        ("app.jobs:fails_later", r"raised KeyError: 'DATABASE' \(app/jobs.py, line 36, in fails_later\)"),
        ("app.broken:oban", r"cannot import app.broken: SyntaxError: .* \(app/misspelt.py, line 2\)"),
        ("app.nested:oban", r"No module named 'no_such_library' \(app/nested.py, line 3, in <module>\)"),
        ("app.unset:oban", r"cannot import app.unset: KeyError: 'NOT_SET' \(app/unset.py, line 3, in"),
    ],
)
async def test_what_is_wrong_with_a_target_is_said_in_one_line(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        await target.load(name)
    assert "\n" not in str(raised.value)


def test_the_traceback_of_the_application_is_logged_at_debug_level() -> None:
    result = command("start", "app.jobs:fails_later", "--log-level", "debug")
    assert "--log-level debug shows the traceback" in result.stderr
    assert "in fails_later\n" in result.stderr
    assert "KeyError: 'DATABASE'" in result.stderr


async def test_an_instance_that_runs_already_is_refused(oban: Oban, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Oban(oban.engine, queues={"default": 1}) as running:
        monkeypatch.setattr(importlib.import_module("app.jobs"), "oban", running)
        with pytest.raises(ConfigError, match=r"app\.jobs:oban is running already"):
            await target.load("app.jobs:oban")


def test_start_without_a_target_and_without_a_url_asks_for_one_of_them(started: list[Oban]) -> None:
    result = invoke("start")
    assert result.exit_code == 2
    assert started == []
    assert "Missing option '--database-url', or a TARGET such as app.jobs:oban" in result.stderr


def test_the_command_ends_with_one_line_about_a_wrong_target() -> None:
    result = command("start", "app.jobs:fails_later", "--processes", "2")
    assert result.returncode == 1
    assert "Error: app.jobs:fails_later raised KeyError: 'DATABASE'" in result.stderr
    assert "Traceback" not in result.stderr


async def test_an_async_factory_runs_on_the_loop_of_its_node(
    sqlite_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_URL", text(sqlite_url))
    with node("app.jobs:make") as process:
        async with Oban(sqlite_url) as client:
            job = await client.enqueue(Job(worker="loop"))

            async def completed() -> Job | None:
                row = await client.get_job(job.id)
                return row if row and row.state is JobState.COMPLETED else None

            row = await eventually(completed)
        assert row.meta["return"] == {"same": True}
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 10) == 0


def test_a_signal_ends_a_factory_that_does_not_return(folder: Path) -> None:
    (folder / "app" / "stuck.py").write_text(
        "import asyncio\nasync def make():\n    print('stuck', flush=True)\n    await asyncio.sleep(60)\n"
    )
    with node("app.stuck:make") as process:
        until(process, "stuck")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


async def test_each_process_imports_the_target(sqlite_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_URL", text(sqlite_url))
    with node("app.jobs:oban", "--processes", "2", "--node", "web") as process:
        for _ in range(2):
            last = (await asyncio.to_thread(until, process, "runs media:2"))[-1]
            # The name in front is that of the process.
            name = "web-1" if "web-1" in last else "web-2"
            assert f"node {name} runs media:2" in last
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(until, process, "waiting for running jobs, up to 77 s")
        assert await asyncio.to_thread(process.wait, 10) == 0
