"""The examples of the README and of `docs/reference/schema.md` run in an empty folder, as for a reader."""

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from oban import Job, JobState, Oban
from oban.worker_entries import declared_entries
from tests.docs.commands import OBAN, URL, commands, define, run
from tests.docs.snippets import fenced
from tests.support.processes import ROOT
from tests.support.waiting import eventually


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OBAN_DATABASE_URL", raising=False)
    return tmp_path


@pytest.mark.usefixtures("own_registry")
async def test_the_readme_enqueues_runs_and_manages(folder: Path) -> None:
    installed = [command for command in commands("README.md") if command[:2] == ["oban", "install"]]
    assert len(installed) == 1
    run(installed[0], folder)
    names = define("README.md")

    (nightly,) = declared_entries("Oban", [])
    assert nightly.declared["worker"] == names["nightly_report"].worker.worker_name
    await names["main"]()
    async with Oban(URL) as client:
        listed = await client.list_jobs()
        assert [(job.queue, job.state) for job in listed] == [
            ("media", JobState.AVAILABLE),
            ("mailers", JobState.AVAILABLE),
            ("media", JobState.SCHEDULED),
        ]
        await names["serve"]()
        first = await client.get_job(listed[0].id)
        assert first is not None
        assert (first.state, first.meta["return"]) == (JobState.COMPLETED, {"sizes": 2})
        await names["sign_up"]("bob@example.com")
        last = (await client.list_jobs())[-1]
        assert last.args == {"to": "bob@example.com", "subject": "Welcome"}
        await client.enqueue(names["Close"].new({"to": "eve@example.com"}))
        async with Oban(URL, queues={"default": 1}):
            await eventually(lambda: _is_told(client, "Closed"))
        assert await names["manage"](client, first.id) == 2
        assert await client.get_job(first.id) is None
        cancelled = select(Job).where(Job.queue == "media", Job.state == "cancelled")
        assert len(await client.list_jobs(cancelled)) == 1
    await names["engine"].dispose()


async def _is_told(client: Oban, subject: str) -> bool:
    closed = await client.list_jobs(select(Job).where(Job.worker.endswith(".Close")))
    told = [job for job in await client.list_jobs() if job.args.get("subject") == subject]
    return [job.state for job in closed] == [JobState.COMPLETED] and len(told) == 1


def test_the_commands_of_the_readme_enqueue_and_run_jobs_and_say_why_one_failed(folder: Path) -> None:
    (folder / "app").mkdir()
    jobs = next(block for block in fenced("README.md", "python") if "class Resize" in block)
    (folder / "app" / "jobs.py").write_text(jobs)
    install, enqueue, start = commands("README.md")[-4:-1]
    run(install, folder)
    subprocess.run([sys.executable, *enqueue[1:]], cwd=folder, check=True)

    async def enqueue_a_bad_one() -> None:
        async with Oban(URL) as client:
            await client.enqueue(Job(worker="app.jobs.Resize", queue="media", max_attempts=5))

    asyncio.run(enqueue_a_bad_one())
    awaited = {"to ann@example.com: Welcome", "KeyError"}
    printed = []
    with subprocess.Popen(
        [*OBAN, *start[1:]], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as node:
        assert node.stdout is not None
        for line in node.stdout:
            printed.append(line)
            found = {part for part in awaited if part in line}
            awaited -= found
            if found and not awaited:
                node.send_signal(signal.SIGTERM)
    assert node.returncode == 0, printed
    (shown,) = fenced("README.md", "text")
    pattern = re.escape(shown.strip()).replace("17", r"\d+").replace(r"job\ 1", r"job\ 4")
    assert any(re.search(pattern, line) for line in printed), printed

    async def ended() -> list[JobState]:
        async with Oban(URL) as client:
            return [job.state for job in await client.list_jobs()]

    assert asyncio.run(ended()) == ["completed", "completed", "scheduled", "retryable"]


async def test_the_examples_of_the_schema_page_run(folder: Path) -> None:
    names = define("docs/reference/schema.md")
    await names["main"]()
    async with Oban(URL) as client:
        assert await client.list_jobs() == []
    local = [
        command for command in commands("docs/reference/schema.md") if "sqlite:///app.db" in " ".join(command)
    ]
    assert [command[0] for command in local] == ["alembic"]
    run([part.replace("app.db", f"{folder}/other.db") for part in local[0]], ROOT)
    async with Oban(f"sqlite+aiosqlite:///{folder}/other.db") as client:
        assert await client.list_jobs() == []


def test_every_make_target_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"`?make ([a-z-]+)", (ROOT / document).read_text()))
        assert named <= targets | {"it"}
