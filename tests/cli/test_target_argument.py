"""TARGET: the argument that means the same as `--app`, of each command that is about a whole application."""

import sys
from pathlib import Path

import click
import pytest

from oban.cli import main
from tests.support.commands import invoke

APP = """
from oban import Oban
oban = Oban("sqlite+aiosqlite:///shop.db", name="Shop")
"""
#: Other commands are about jobs, queues and entries, which are their arguments.
OF_AN_APPLICATION = {"check", "config", "install", "nodes", "start", "stats", "top", "uninstall", "web"}


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The module of an application, in the current folder, under a name that no other test imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "shop_of_target", raising=False)
    (tmp_path / "shop_of_target.py").write_text(APP)
    return "shop_of_target:oban"


def test_the_commands_about_an_application_have_the_argument_and_the_option() -> None:
    found = set()
    for name, command in main.commands.items():
        options = {
            option for each in command.params for option in each.opts if isinstance(each, click.Option)
        }
        if any(
            isinstance(each, click.Argument) and each.name in ("target", "targets") for each in command.params
        ):
            assert "--app" in options, name
            found.add(name)
        elif not isinstance(command, click.Group) and name != "why":
            assert "--app" not in options, name
    assert found == OF_AN_APPLICATION


def test_the_argument_is_the_application(app: str) -> None:
    assert invoke("install", app).stdout == "The Oban tables are in place.\n"
    assert invoke("check", app).exit_code == 0
    assert "No node of the instance shop_of_target:oban runs queues" in invoke("nodes", app).stdout
    assert "Nodes: 0 alive." in invoke("stats", app).stdout
    assert "shop.db" in invoke("top", app, "--once").stdout
    assert "sqlite+aiosqlite:///shop.db" in invoke("config", app).stdout
    # The same commands with the option.
    assert invoke("jobs", "list", "--app", app).stdout == "There are no jobs.\n"
    assert invoke("uninstall", app, "--yes").stdout == "The Oban tables were dropped.\n"
    assert invoke("uninstall", "--app", app, "--yes").stdout == "No Oban tables are installed.\n"


@pytest.mark.parametrize("command", ["install", "start", "config"])
def test_the_argument_and_the_option_exclude_each_other(app: str, command: str) -> None:
    result = invoke(command, app, "--app", app)
    assert result.exit_code == 2
    assert "TARGET is the same as --app: pass one of them." in result.stderr


@pytest.mark.parametrize("command", ["install", "start", "web"])
def test_a_url_as_the_argument_is_refused_without_its_password(command: str) -> None:
    result = invoke(command, "postgresql+asyncpg://me:secret@db/shop")
    assert result.exit_code == 2
    assert "Pass a URL as --database-url." in result.stderr
    assert "secret" not in result.output


def test_an_application_in_the_place_of_a_job_is_an_error_that_names_the_option(app: str) -> None:
    result = invoke("why", app)
    assert result.exit_code == 2
    assert "--app" in result.stderr.partition("Error:")[2]
