"""Tables of `oban top`: which columns fit into a width, and how wide each of them is."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Args:
        heading: Its heading.
        rank: When the screen is too narrow, the columns with the highest rank are left out first.
        least: How many characters a column that has longer texts is shortened to before others are left out.
        most: How wide it is at most, unless there is room left.
        right: Whether it is aligned to the right.
        tail: Whether a longer text is shortened at its beginning, as the last part of a worker's name tells
            most.
    """

    heading: str
    rank: int = 0
    least: int = 40
    most: int = 40
    right: bool = False
    tail: bool = False


def natural_widths(columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> list[int]:
    """How wide each column has to be so that nothing is shortened."""
    return [
        max([len(column.heading), *(row[index].cell_len for row in rows)])
        for index, column in enumerate(columns)
    ]


def fit(columns: Sequence[Column], natural: Sequence[int], width: int) -> dict[int, int]:
    """The indexes of the columns to show in `width`, with the width of each."""
    least = [min(size, column.least) for size, column in zip(natural, columns, strict=True)]
    shown = list(range(len(columns)))
    while len(shown) > 1 and sum(least[index] + GAP for index in shown) - GAP > width:
        # Of columns with the same rank, the last one goes first.
        shown.remove(max(shown, key=lambda index: (columns[index].rank, index)))
    widths = {index: least[index] for index in shown}
    room = width - sum(size + GAP for size in widths.values()) + GAP
    for most in ([column.most for column in columns], natural):
        for index in sorted(shown, key=lambda index: columns[index].rank):
            more = max(0, min(room, min(most[index], natural[index]) - widths[index]))
            widths[index] += more
            room -= more
    if room < 0:
        widths[shown[0]] = max(1, widths[shown[0]] + room)
    return widths


def line(columns: Sequence[Column], cells: Sequence[Text], widths: dict[int, int], width: int) -> Text:
    """One line of a table, exactly `width` characters wide."""
    made = Text(no_wrap=True, end="")
    for number, (index, size) in enumerate(widths.items()):
        cell = _shortened(cells[index], size, columns[index].tail)
        padding = " " * (size - cell.cell_len)
        if number:
            made.append(" " * GAP)
        if columns[index].right:
            made.append(padding)
        made.append_text(cell)
        if not columns[index].right:
            made.append(padding)
    made.truncate(width, pad=True)
    return made


def _shortened(cell: Text, size: int, tail: bool) -> Text:
    if cell.cell_len <= size:
        return cell
    cell = cell.copy()
    if not tail:
        cell.truncate(size, overflow="ellipsis")
        return cell
    # A character can be two cells wide.
    while cell.cell_len > size - 1:
        cell = cell[1:]
    return Text("…", style=cell.style).append_text(cell)
