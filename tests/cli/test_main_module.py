"""Workers in the module that Python runs as `__main__`: their names, and a warning where they cannot work."""

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL

from oban import JobState, Oban, Worker, migration
from oban.errors import UnknownWorker
from oban.registry import registry
from tests.support.commands import node, text
from tests.support.waiting import eventually

SCRIPT = """
import asyncio, os, sys
from oban import Oban, Record, SyncOban, Worker, job, main_module

class Send(Worker):
    async def process(self, job):
        return Record(1)

oban = Oban("sqlite+aiosqlite:///app.db", queues={"default": 1})

async def run():
    async with oban:
        pass

@job
def send():
    pass

class Named(Worker, name="named"):
    async def process(self, job):
        pass

if __name__ == "__main__":
    main_module.PATIENCE = float(os.environ.get("PATIENCE", 60))
    jobs = [Send.new(), Send.new(), send.new(), Named.new()]
    print(*[job.worker for job in jobs])
    if url := os.environ.get("URL"):
        SyncOban(url).enqueue_many(jobs)
    print("the end", file=sys.stderr)
    if os.environ.get("NODE"):
        asyncio.run(run())
"""
WARNING = "is defined in a script, so its name is different in a process that imports the module"


@pytest.fixture(autouse=True)
def script(folder: Path) -> Path:
    path = folder / "app" / "mail.py"
    path.write_text(SCRIPT)
    return path


def python(*arguments: str, **environment: str) -> tuple[list[str], str]:
    """Run Python in this folder; returns the words that it prints, and what it prints to stderr."""
    ended = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    return ended.stdout.split(), ended.stderr


async def test_a_module_that_is_run_with_m_enqueues_what_a_node_can_import(sqlite_url: URL) -> None:
    names, warnings = python("-m", "app.mail", URL=text(sqlite_url.set(drivername="sqlite")))
    assert names == ["app.mail.Send", "app.mail.Send", "app.mail.send", "named"]
    assert warnings == "the end\n"
    async with Oban(sqlite_url) as oban:
        with node("--database-url", text(sqlite_url), "--import", "app.mail"):

            async def completed() -> bool:
                return {row.state for row in await oban.list_jobs()} == {JobState.COMPLETED}

            await eventually(completed)


def test_a_package_that_is_run_has_the_name_of_its_main_module(script: Path) -> None:
    script.rename(script.with_name("__main__.py"))
    names, warnings = python("-m", "app")
    assert names == ["app.__main__.Send", "app.__main__.Send", "app.__main__.send", "named"]
    assert warnings == "the end\n"


def test_a_script_warns_once_about_each_worker_that_no_node_can_find() -> None:
    names, warnings = python("app/mail.py")
    assert names == ["__main__.Send", "__main__.Send", "__main__.send", "named"]
    at_the_end = warnings.partition("the end\n")[2]
    assert at_the_end.count(WARNING) == warnings.count(WARNING) == 2
    assert f"the worker __main__.Send {WARNING}" in warnings
    assert f"the worker __main__.send {WARNING}" in warnings


def test_a_process_that_goes_on_to_create_jobs_warns_before_its_end() -> None:
    _, warnings = python("app/mail.py", PATIENCE="0")
    before_the_end = warnings.partition("the end\n")[0]
    assert before_the_end.count(WARNING) == warnings.count(WARNING) == 2


def test_a_script_that_runs_its_own_node_does_not_warn() -> None:
    migration.upgrade("sqlite:///app.db")
    names, warnings = python("app/mail.py", NODE="1")
    assert names[0] == "__main__.Send"
    assert warnings == "the end\n"


def test_an_interactive_session_has_no_module_to_import() -> None:
    code = "import runpy, sys; sys.ps1 = ''; runpy.run_module('app.mail', None, '__main__', True)"
    names, warnings = python("-c", code)
    assert names[0] == "__main__.Send"
    assert WARNING in warnings


def test_jobs_that_an_older_version_has_named_after_main_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry, "app.mail.Send", Worker)
    with pytest.raises(UnknownWorker, match="a script has enqueued it: run the script with `python -m`"):
        registry["__main__.Send"]
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", type("Spec", (), {"name": "app.mail"}))
    assert registry["__main__.Send"] is Worker
