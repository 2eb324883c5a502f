"""Every example of the README and of `docs/schema.md` runs in an empty folder, as a reader would run it."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from oban import Job, JobState, Oban
from tests.docs.commands import OBAN, URL, commands, define, run
from tests.docs.snippets import fenced
from tests.support.processes import ROOT
from tests.support.waiting import eventually


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OBAN_DATABASE_URL", raising=False)
    return tmp_path


async def test_the_readme_enqueues_runs_and_manages(folder: Path) -> None:
    installed = [command for command in commands("README.md") if command[:2] == ["oban", "install"]]
    assert len(installed) == 1
    run(installed[0], folder)
    names = define("README.md")

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


def test_the_start_command_of_the_readme_runs_its_workers(folder: Path) -> None:
    package = folder / "app"
    package.mkdir()
    workers = next(block for block in fenced("README.md", "python") if "class Resize" in block)
    (package / "workers.py").write_text(workers)
    run(["oban", "install", "--database-url", URL], folder)
    start = next(command for command in commands("README.md") if command[:2] == ["oban", "start"])
    enqueue = "import asyncio, app.workers; asyncio.run(app.workers.main())"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    subprocess.run([sys.executable, "-c", enqueue], cwd=folder, check=True, env=environment)

    printed = []
    with subprocess.Popen(
        [*OBAN, *start[1:]], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as node:
        assert node.stdout is not None
        for line in node.stdout:
            printed.append(line)
            if "to ann@example.com: Welcome" in line:
                node.send_signal(signal.SIGTERM)
    assert node.returncode == 0, printed

    async def ended() -> dict[int, JobState]:
        async with Oban(URL) as client:
            return {job.id: job.state for job in await client.list_jobs()}

    assert asyncio.run(ended())[2] is JobState.COMPLETED


async def test_the_examples_of_the_schema_page_run(folder: Path) -> None:
    names = define("docs/schema.md")
    await names["main"]()
    async with Oban(URL) as client:
        assert await client.list_jobs() == []
    local = [command for command in commands("docs/schema.md") if "sqlite:///app.db" in " ".join(command)]
    assert [command[0] for command in local] == ["alembic"]
    run([part.replace("app.db", f"{folder}/other.db") for part in local[0]], ROOT)
    async with Oban(f"sqlite+aiosqlite:///{folder}/other.db") as client:
        assert await client.list_jobs() == []


def test_every_make_target_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"`?make ([a-z-]+)", (ROOT / document).read_text()))
        assert named <= targets | {"it"}


def test_links_between_documents_lead_to_files() -> None:
    for document in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text()):
            assert (ROOT / link).exists(), f"{document}: {link}"
