"""The help of each command: what is in it, and that no line is cut off."""

from collections.abc import Iterator

import click
import pytest

from oban.cli import main
from tests.support.commands import invoke


def commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def test_every_command_and_option_says_what_it_does() -> None:
    for path, command in commands(main):
        assert command.help, path
        options = [option for option in command.params if isinstance(option, click.Option)]
        assert [option.opts for option in options if not (option.help or option.hidden)] == [], path


@pytest.mark.parametrize("group", ["", "jobs", "queues", "periodic"])
def test_no_sentence_about_a_command_is_cut_off(group: str) -> None:
    lines = invoke(*group.split(), "--help").stdout.splitlines()
    assert [line for line in lines[1:] if line.endswith("...")] == []
