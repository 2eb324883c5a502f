"""Every example of `docs/guides/command_line.md` runs unchanged, and its JSON Schema is current."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete
from sqlalchemy import create_engine, insert

from oban.cli import main
from oban.cli.documents import json_schema
from tests.docs.snippets import fenced
from tests.support.commands import invoke
from tests.support.databases import SQLiteFactory
from tests.support.processes import ROOT
from tests.support.rows import MADE, TABLE, row

PAGE = "docs/guides/command_line.md"
BLOCKS = fenced(PAGE, "console")
_TRACEBACK = (
    'Traceback (most recent call last):\n  File "app.py", line 7, in process\nValueError: no such customer'
)
ROWS: list[dict[str, Any]] = [
    row("completed", worker="app.Report", queue="reports", args={"year": 2023}),
    row(
        "discarded",
        worker="app.SendEmail",
        queue="mail",
        args={"customer": {"id": 6}},
        attempt=3,
        max_attempts=3,
        errors=[{"attempt": 3, "at": "2024-03-09T22:18:30Z", "error": _TRACEBACK}],
    ),
    row("executing", worker="app.Report", queue="reports", args={"year": 2024}),
    row(
        "retryable",
        worker="app.SendEmail",
        queue="mail",
        args={"customer": {"id": 7}},
        attempt=2,
        max_attempts=3,
        errors=[{"attempt": 2, "at": "2024-03-09T22:18:30Z", "error": "TimeoutError: no answer"}],
        scheduled_at=MADE + timedelta(minutes=10),
    ),
    row(worker="app.SendEmail", queue="mail", args={"customer": {"id": 8}}),
]
_APPLICATION = "from oban import Oban\noban = Oban('sqlite+aiosqlite:///app.db', queues={'mail': 5})\n"


@pytest.fixture
def project(tmp_path: Path, sqlite_factory: SQLiteFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an application, and the database `app.db` with jobs."""
    url = sqlite_factory.create()
    shutil.move(str(url.database), tmp_path / "app.db")
    engine = create_engine(f"sqlite:///{tmp_path}/app.db")
    with engine.begin() as connection:
        for values in ROWS:
            connection.execute(insert(TABLE).values(values))
    engine.dispose()
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "jobs.py").write_text(_APPLICATION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OBAN_DATABASE_URL", "sqlite+aiosqlite:///app.db")
    monkeypatch.setattr("sys.path", [*sys.path])
    return tmp_path


def steps(block: str) -> list[tuple[str, list[str]]]:
    """The commands of a block, each with the lines that it prints."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(lines[0], lines[1:]) for lines in (part.rstrip("\n").split("\n") for part in parts)]


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a command, in this process if it needs no shell; returns what it prints."""
    words = shlex.split(command)
    if words[0] == "export":
        name, _, value = words[1].partition("=")
        monkeypatch.setenv(name, value)
        return ""
    if not {"|", ">"} & set(words):
        result = invoke(*words[1:])
        assert result.exit_code == 0, result.output
        # Other tests have an application of the same name.
        sys.modules.pop("app.jobs", None)
        sys.modules.pop("app", None)
        return result.output
    # xargs runs programs, so that a function is not enough.
    folder = Path.cwd() / "bin"
    folder.mkdir(exist_ok=True)
    for name, arguments in (("oban", " -m oban"), ("python", "")):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{arguments} "$@"\n')
        program.chmod(0o755)
    shell = f"set -e -o pipefail; PATH={shlex.quote(str(folder))}:$PATH; {command}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("block", BLOCKS, ids=[block.splitlines()[0][2:60] for block in BLOCKS])
def test_examples_print_what_the_page_shows(
    project: Path, monkeypatch: pytest.MonkeyPatch, block: str
) -> None:
    for command, expected in steps(block):
        printed = re.sub(r"\([\d,]+ \w+ ago\)", "(2 hours ago)", run(command, monkeypatch))
        if expected:
            assert printed.splitlines() == expected, command


def test_the_schema_is_current() -> None:
    stored = (ROOT / "docs" / "command_line.schema.json").read_text()
    assert json.loads(stored) == json_schema(), "run `python -m tests.support.json_schema`"


def test_every_command_is_on_the_page() -> None:
    overview = (ROOT / PAGE).read_text().partition("## Choosing")[0]
    assert set(main.commands) - {"version"} <= set(re.findall(r"`oban (\w+)", overview))


def test_every_filter_and_change_is_on_the_page() -> None:
    page = (ROOT / PAGE).read_text()
    jobs: Any = main.commands["jobs"]
    common = {"--config", "--app", "--database-url", "--prefix", "--name", "--json", "--help", "--yes", "-y"}
    options = {
        option for command in jobs.commands.values() for each in command.params for option in each.opts
    }
    assert {option for option in options if option.startswith("--")} - common <= set(
        re.findall(r"--[\w-]+", page)
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_get_their_script(shell: str) -> None:
    result = invoke("completion", shell)
    assert result.exit_code == 0
    assert "_OBAN_COMPLETE" in result.stdout
    assert f"oban completion {shell}" in (ROOT / PAGE).read_text()


@pytest.mark.parametrize(
    ("arguments", "incomplete", "expected"),
    [
        ([], "jo", ["jobs"]),
        (["jobs"], "re", ["retry"]),
        (["jobs", "list", "--state"], "comp", ["completed"]),
        (["jobs", "list"], "--older", ["--older-than"]),
        (["completion"], "z", ["zsh"]),
    ],
)
def test_completion_knows_commands_options_and_states(
    arguments: list[str], incomplete: str, expected: list[str]
) -> None:
    found = ShellComplete(main, {}, "oban", "_OBAN_COMPLETE").get_completions(arguments, incomplete)
    assert [item.value for item in found] == expected
