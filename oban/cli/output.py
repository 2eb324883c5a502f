"""What commands print: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from oban.error_texts import log_safe

F = TypeVar("F", bound=Callable[..., Any])

#: The width of output that goes to a file or another program, where nothing is cut off.
_UNLIMITED = 100_000
_GAP = 2

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


class Column(NamedTuple):
    """A column of a table.

    Args:
        heading: Its heading.
        rank: When a terminal is too narrow for all columns, those with the highest rank are left out first;
            those with rank 0 stay.
        right: Whether it is aligned to the right, as numbers are.
    """

    heading: str
    rank: int = 0
    right: bool = False


def json_option(function: F) -> F:
    """Add the option `--json`, which the command gets as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for other programs.")(function)


def document(type_: Any, value: Any) -> None:
    """Print a value of a type as JSON. `oban.cli.documents` lists the types of all commands."""
    from pydantic import TypeAdapter  # Importing it takes as long as the rest of a command.

    text = json.dumps(TypeAdapter(type_).dump_python(value, mode="json"), indent=2, ensure_ascii=False)
    click.echo(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def table(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table. In a terminal, it leaves columns out and shortens cells so that each row is one line."""
    console = _console()
    cells = [[_cell(value) for value in row] for row in rows]
    shown = _fitting(columns, cells, console.width)
    grid = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for index in shown:
        column = columns[index]
        grid.add_column(
            column.heading, justify="right" if column.right else "left", no_wrap=True, overflow="ellipsis"
        )
    for row in cells:
        grid.add_row(*(row[index] for index in shown))
    with console.capture() as capture:
        console.print(grid)
    for line in capture.get().splitlines():
        click.echo(line.rstrip(), color=console.is_terminal)


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


def _console() -> Console:
    # rich obeys NO_COLOR, and COLUMNS where the width of the terminal is not known.
    console = Console(highlight=False, emoji=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, width=_UNLIMITED, color_system=None)


def _cell(value: str | Text) -> Text:
    # Other programs can store anything, such as control characters, in a job.
    return value if isinstance(value, Text) else Text(log_safe(value))


def _fitting(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> list[int]:
    """The indexes of the columns to show."""
    widths = [
        max([len(column.heading), *(row[index].cell_len for row in rows)])
        for index, column in enumerate(columns)
    ]
    shown = list(range(len(columns)))
    while sum(widths[index] + _GAP for index in shown) - _GAP > width:
        # Of columns with the same rank, the last one goes first.
        last = max(shown, key=lambda index: (columns[index].rank, index))
        if columns[last].rank == 0:
            break
        shown.remove(last)
    return shown
