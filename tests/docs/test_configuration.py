"""`docs/guides/configuration.md`: its files are valid, and its commands print what it says."""

import os
import re
import shlex
import socket
import sys
from pathlib import Path

import pytest

from oban import Oban
from oban.cli import settings
from oban.cli.setting_types import TYPES
from oban.config import Options
from tests.docs.snippets import fenced
from tests.support.commands import invoke
from tests.support.processes import ROOT
from tests.support.starts import record_starts

PAGE = "docs/guides/configuration.md"
OBAN_TOML, PYPROJECT, OWN, WRONG = fenced(PAGE, "toml")
CONSOLE = fenced(PAGE, "console")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "workers.py").write_text("from oban import job\n\n@job()\nasync def greet(): ...\n")
    (tmp_path / "app" / "jobs.py").write_text(
        "from oban import Oban\noban = Oban('sqlite+aiosqlite:///own.db', name='Own', lease=7)\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("OBAN_") and name != "OBAN_FAST_PATH"]:
        monkeypatch.delenv(name)
    (tmp_path / "oban.toml").write_text(OBAN_TOML)
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Oban]:
    """The instances that `oban start` would run."""
    return record_starts(monkeypatch)


def run(line: str) -> tuple[int, str, str]:
    """Run a line of a console block, which can begin with variables."""
    words = shlex.split(line.removeprefix("$ "))
    variables: dict[str, str | None] = {}
    while "=" in words[0]:
        name, _, variables[name] = words.pop(0).partition("=")
    assert words[0] == "oban"
    result = invoke(*words[1:], **variables)
    return result.exit_code, result.stdout, result.stderr


def console(words: str) -> list[str]:
    """The lines of the only block that contains these words."""
    [block] = [block for block in CONSOLE if words in block]
    return block.splitlines()


def test_both_files_have_the_same_settings(folder: Path) -> None:
    found = settings.load({})
    (folder / "oban.toml").unlink()
    (folder / "pyproject.toml").write_text(PYPROJECT)
    same = settings.load({})
    assert found.values == same.values
    assert found.values["database_url"] == f"sqlite+aiosqlite:///{folder}/app.db"
    assert same.file is not None
    assert same.file.name == "pyproject.toml"


def test_the_commands_create_the_tables_and_run_the_queues(folder: Path, started: list[Oban]) -> None:
    install, start = console("oban install")
    assert run(install) == (0, "The Oban tables are in place.\n", "")
    assert (folder / "app.db").exists()
    assert run(start)[0] == 0
    [oban] = started
    limits = {name: (queue.limit, queue.paused) for name, queue in oban.options.queues.items()}
    assert limits == {"default": (10, False), "media": (2, True)}


def test_the_environment_and_the_arguments_take_precedence(started: list[Oban]) -> None:
    [command] = console("OBAN_LEASE=2m")
    assert run(command)[0] == 0
    options = started[0].options
    assert (options.lease, options.node, list(options.queues)) == (120, "web-1", ["default"])


def test_oban_config_prints_what_the_page_shows(folder: Path) -> None:
    command, *shown = console("oban config --lease 60")
    code, printed, _ = run(command)
    assert code == 0
    rows = [re.split(r"  +", line) for line in printed.splitlines()]
    for line in shown:
        row = [cell.replace("////srv/", f"///{folder}/") for cell in re.split(r"  +", line)]
        assert row in rows or row == ["…"]
    assert ["node", socket.gethostname(), "default"] in rows


def test_a_file_can_name_the_own_instance(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "oban.toml").write_text(OWN + "lease = 8\n")
    monkeypatch.setattr("sys.path", [*sys.path])
    for module in [name for name in sys.modules if name.split(".")[0] == "app"]:
        monkeypatch.delitem(sys.modules, module)
    rows = [re.split(r"  +", line) for line in run("oban config")[1].splitlines()]
    assert ["name", "Own", "app.jobs:oban"] in rows
    assert ["lease", "8s", "oban.toml, line 2"] in rows
    assert run("oban install")[0] == 0
    assert (folder / "own.db").exists()


def test_another_file_can_be_chosen(folder: Path, started: list[Oban]) -> None:
    [command] = console("--config live.toml")
    (folder / "live.toml").write_text('database_url = "sqlite+aiosqlite:///live.db"\nname = "Live"\n')
    assert run(command)[0] == 0
    assert started[0].options.name == "Live"
    code, _, stderr = run("oban start --config /dev/null")
    assert (code, started[1:]) == (2, [])
    assert "--database-url" in stderr


def test_a_wrong_file_is_reported_as_the_page_shows(folder: Path) -> None:
    (folder / "oban.toml").write_text(WRONG)
    command, *shown = console("laese")
    assert run(command) == (1, "", "\n".join(shown) + "\n")


def test_the_page_lists_the_settings_that_are_no_options_of_oban() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / PAGE).read_text(), re.MULTILINE)
    assert set(listed) == {key for key in TYPES if key not in Options.__dataclass_fields__} | {
        "queues",
        "retention",
    }
