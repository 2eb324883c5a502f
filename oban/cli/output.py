"""What commands print: tables for people, JSON for programs."""

import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.text import Text

from oban.cli.columns import Column, fit, line, natural_widths
from oban.error_texts import log_safe

F = TypeVar("F", bound=Callable[..., Any])

#: The width of output that goes to a file or another program, where nothing is cut off.
_UNLIMITED = 100_000
#: The longest line of a text in a wide terminal, and the shortest one in a narrow terminal.
_LONGEST_LINE, _SHORTEST_LINE = 100, 20

STATE_STYLES = {
    "available": "cyan",
    "scheduled": "blue",
    "suspended": "bright_black",
    "executing": "yellow",
    "retryable": "magenta",
    "completed": "green",
    "cancelled": "bright_black",
    "discarded": "red",
}


def json_option(function: F) -> F:
    """Add the option `--json`, which the command gets as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for other programs.")(function)


def document(type_: Any, value: Any) -> None:
    """Print a value of a type as JSON. `oban.cli.documents` lists the types of all commands."""
    from pydantic import TypeAdapter  # Importing it takes as long as the rest of a command.

    text = json.dumps(TypeAdapter(type_).dump_python(value, mode="json"), indent=2, ensure_ascii=False)
    # In JSON, characters that a terminal would obey can only be in strings, where an escape is the same.
    click.echo("\n".join(line if line.isprintable() else _json_escaped(line) for line in text.split("\n")))


def table(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table. In a terminal, it shortens cells and leaves columns out so that each row is one line."""
    console = _console()
    cells = [[_cell(value) for value in row] for row in rows]
    widths = fit(columns, natural_widths(columns, cells), console.width)
    headings = [Text(column.heading, style="bold") for column in columns]
    _print(console, *(line(columns, row, widths) for row in (headings, *cells)))


def write(text: Text) -> None:
    """Print a text of one or more lines. In a terminal, those that are too long are continued on the next."""
    console = _console()
    if console.is_terminal:
        text.overflow = "fold"
        _print(console, text)
    else:
        click.echo(text.plain, color=False)


def printable(text: str) -> str:
    """A text of several lines with escapes for what a terminal would obey, such as control characters."""
    return "\n".join(_escaped(line.removesuffix("\r")) for line in text.expandtabs().split("\n"))


def paragraph(text: str, *, indent: int = 0, style: str = "") -> None:
    """Print a text. In a terminal, its lines are broken between words, and up to `_LONGEST_LINE` long."""
    console = _console()
    text, margin = log_safe(text, 10_000), " " * indent
    if console.is_terminal:
        width = max(_SHORTEST_LINE, min(console.width, _LONGEST_LINE))
        text = textwrap.fill(
            text, width, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False
        )
    else:
        text = margin + text
    with console.capture() as capture:
        console.print(Text(text, style), soft_wrap=True)
    click.echo(capture.get().rstrip("\n"), color=console.is_terminal)


def command_line(command: str, *, indent: int = 0) -> None:
    """Print a command to run. It stays one line, so that it can be copied from any terminal."""
    console = _console()
    with console.capture() as capture:
        console.print(Text(" " * indent + log_safe(command, 10_000), "bold cyan"), soft_wrap=True)
    click.echo(capture.get().rstrip("\n"), color=console.is_terminal)


def state(value: str) -> Text:
    """A state in its colour."""
    return Text(value, style=STATE_STYLES.get(value, ""))


def time(value: datetime | None) -> str:
    """A time in UTC, to the second."""
    return "-" if value is None else f"{value:%Y-%m-%d %H:%M:%S}"


def confirm(question: str, *, yes: bool) -> None:
    """Ask for confirmation, unless the option `--yes` was used.

    Raises:
        click.UsageError: Nobody can answer, because the input is not a terminal.
        click.Abort: The answer is no.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(f"{question} Confirm with --yes, as the input is not a terminal.")
    click.confirm(question, abort=True, err=True)


def _escaped(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)


def _json_escaped(line: str) -> str:
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in line)


def _print(console: Console, *texts: Text) -> None:
    with console.capture() as capture:
        for text in texts:
            console.print(text)
    for shown in capture.get().splitlines():
        click.echo(shown.rstrip(), color=console.is_terminal)


def _console() -> Console:
    # rich obeys NO_COLOR, and COLUMNS where the width of the terminal is not known.
    console = Console(highlight=False, emoji=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, width=_UNLIMITED, color_system=None)


def _cell(value: str | Text) -> Text:
    # Other programs can store anything, such as control characters, in a job.
    return value if isinstance(value, Text) else Text(log_safe(value))
