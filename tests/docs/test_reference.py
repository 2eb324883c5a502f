"""The tables of `docs/reference/index.md` are complete: public names, options, commands and errors."""

import re
from dataclasses import fields

import oban
from oban import JobState, errors
from oban.cli import main
from oban.config import Options, Retention
from tests.support.processes import ROOT

TEXT = (ROOT / "docs/reference/index.md").read_text()


def rows(heading: str) -> dict[str, list[str]]:
    """The cells after the first one of each row of the tables below a heading, by each name in the first."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found: dict[str, list[str]] = {}
    for line in re.findall(r"^\| `.*$", section, re.MULTILINE):
        first, *cells = (cell.strip() for cell in line.strip("| ").split(" | "))
        found |= dict.fromkeys(re.findall(r"`([^`]+)`", first), cells)
    return found


def test_the_public_names_are_those_that_the_package_exports() -> None:
    assert rows("Public names").keys() == set(oban.__all__)


def test_every_option_has_its_default() -> None:
    listed, options, other = rows("Options of `Oban`"), Options(), Options(lease=100)
    names = {item.name for item in fields(Options) if item.init}
    assert listed.keys() == names | {item.name for item in fields(Retention)}
    for name in names:
        value, default = getattr(options, name), listed[name][1]
        if name != "lease" and value != getattr(other, name):
            assert (value, default) == (options.lease / 4, "`lease` / 4"), name
        elif isinstance(value, float):
            assert default == f"{value:g}", name
        elif isinstance(value, str) and name != "node":
            assert default.strip('`"') == value, name


def test_every_state_command_and_error_has_a_row() -> None:
    assert rows("States").keys() == {state.value for state in JobState}
    commands = {re.sub(r"^oban -*", "", name) for name in rows("Commands")}
    known_commands = {
        f"{name} {inner}" if inner else name
        for name, command in main.commands.items()
        for inner in getattr(command, "commands", {"": None})
    }
    assert commands == known_commands
    section = TEXT.partition("\n## Errors\n")[2]
    known = {
        name
        for name, item in vars(errors).items()
        if isinstance(item, type) and item.__module__ == "oban.errors"
    }
    assert set(re.findall(r"`(?:oban\.)?([A-Z]\w+)`", section)) == known | {"Oban"}
