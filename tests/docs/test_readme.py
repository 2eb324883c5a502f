"""The examples of the README, the home page and `docs/reference/schema.md` run in an empty folder."""

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from oban import Oban
from tests.docs.commands import OBAN, URL, commands, define, run
from tests.docs.snippets import fenced
from tests.support.processes import ROOT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OBAN_DATABASE_URL", raising=False)
    return tmp_path


@pytest.mark.usefixtures("own_registry")
async def test_the_readme_enqueues_in_a_transaction(folder: Path) -> None:
    run(["oban", "install", "--database-url", URL], folder)
    names = define("README.md")
    async with Oban(URL) as client:
        await names["main"]()
        await names["sign_up"]("bob@example.com")
        jobs = await client.list_jobs()
    assert [(job.state, job.args) for job in jobs] == [
        ("available", {"to": to, "subject": "Welcome"}) for to in ("ann@example.com", "bob@example.com")
    ]
    await names["engine"].dispose()


def test_the_readme_and_the_home_page_have_a_running_job_after_three_commands(folder: Path) -> None:
    (code,) = fenced("docs/index.md", "python")
    assert code == fenced("README.md", "python")[0]
    (folder / "jobs.py").write_text(code)
    shown = commands("docs/index.md")
    assert commands("README.md")[: len(shown)] == shown
    checkout, install, enqueue, start = shown
    assert checkout == ["pip", "install", "."]

    run(install, folder)
    subprocess.run([sys.executable, *enqueue[1:]], cwd=folder, check=True)
    with subprocess.Popen([*OBAN, *start[1:]], cwd=folder, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        for line in node.stdout:
            assert f"prints `{line.strip()}`" in (ROOT / "docs/index.md").read_text()
            node.send_signal(signal.SIGTERM)
    assert node.returncode == 0

    async def ended() -> list[str]:
        async with Oban(URL) as client:
            return [job.state for job in await client.list_jobs()]

    assert asyncio.run(ended()) == ["completed"]


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
