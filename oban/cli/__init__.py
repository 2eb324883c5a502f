"""The command line: `oban`, with its commands."""

import importlib
from collections.abc import Iterator, MutableMapping
from typing import Any

import click

import oban
from oban.errors import ObanError

#: The module of each command. A command has the name of its function.
MODULES = {
    "start": "start",
    "install": "schema",
    "uninstall": "schema",
    "check": "check",
    "config": "config",
    "jobs": "jobs",
    "periodic": "periodic_changes",
    "queues": "queues",
    "nodes": "nodes",
    "stats": "stats",
    "top": "top.command",
    "completion": "completion",
    "metrics": "metrics",
    "why": "why",
    "web": "web",
}


class _Commands(MutableMapping[str, click.Command]):
    """The commands by name. The module of a command is imported when the command is looked up."""

    def __init__(self) -> None:
        self._commands: dict[str, click.Command | None] = dict.fromkeys(MODULES)

    def __getitem__(self, name: str) -> click.Command:
        found = self._commands[name]
        if found is None:
            module = importlib.import_module(f"oban.cli.{MODULES[name]}")
            found = self._commands[name] = getattr(module, name)
        return found

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._commands[name] = command

    def __delitem__(self, name: str) -> None:
        del self._commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._commands)

    def __len__(self) -> int:
        return len(self._commands)


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ObanError as error:
            raise click.ClickException(str(error)) from error
        except Exception as error:
            # The commands that need no database are fast because they do not import SQLAlchemy.
            from oban.cli.refusals import refusal

            if (problem := refusal(error)) is None:
                raise
            raise click.ClickException(problem) from error


@click.group(cls=_Group, commands=_Commands(), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(oban.__version__, prog_name="oban", message="%(prog)s %(version)s")
def main() -> None:
    """A SQLAlchemy-native job queue that lives in your application's own database.

    Commands find the database by --database-url or --app, by the environment variable OBAN_DATABASE_URL, or
    in the configuration file. Their exit code is 0, 1 if they have failed, or 2 if they were used wrongly.
    """


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"oban {oban.__version__}")
