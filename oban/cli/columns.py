"""Columns of tables in a terminal: which of them fit into its width, and how wide each of them is."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

GAP = 2
#: How many characters of a time are left without the year, such as `…11-29 19:57:25`.
_LEAST_OF_TIME = 15


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Args:
        heading: Its heading, which is not shortened while another column could be left out.
        rank: When even shortened texts do not fit, the columns with the highest rank are left out first.
        least: How many characters a column that has longer texts is shortened to before others are left out.
        right: Whether it is aligned to the right.
        tail: Whether a longer text is shortened at its beginning, as the last part of a worker's name tells
            most.
        whole: Whether texts that do not fit are shortened to `least` at once, as a part of a year tells
            nothing.
    """

    heading: str
    rank: int = 0
    least: int = 40
    right: bool = False
    tail: bool = False
    whole: bool = False


def time_column(heading: str, rank: int = 0) -> Column:
    """A column of times, which lose their year if there is not enough room."""
    return Column(heading, rank=rank, least=_LEAST_OF_TIME, tail=True, whole=True)


def natural_widths(columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> list[int]:
    """How wide each column has to be so that nothing is shortened."""
    return [
        max([len(column.heading), *(row[index].cell_len for row in rows)])
        for index, column in enumerate(columns)
    ]


def fit(columns: Sequence[Column], natural: Sequence[int], width: int) -> dict[int, int]:
    """The indexes of the columns to show in `width`, with the width of each."""
    if sum(natural) + GAP * (len(columns) - 1) <= width:
        return dict(enumerate(natural))
    widths = {
        index: min(natural[index], max(column.least, len(column.heading)))
        for index, column in enumerate(columns)
    }
    while len(widths) > 1 and _total(widths) > width:
        # Of columns with the same rank, the last one goes first.
        del widths[max(widths, key=lambda index: (columns[index].rank, index))]
    if (room := width - _total(widths)) < 0:
        index = next(iter(widths))
        return {index: max(1, widths[index] + room)}
    # The narrowest of the shortened columns gets what is left, so that long texts become equally wide.
    while growing := {
        index: step
        for index, size in widths.items()
        if 0
        < (step := natural[index] - size if columns[index].whole else min(1, natural[index] - size))
        <= room
    }:
        index = min(growing, key=lambda index: (widths[index], columns[index].rank))
        widths[index] += growing[index]
        room -= growing[index]
    return widths


def line(columns: Sequence[Column], cells: Sequence[Text], widths: dict[int, int]) -> Text:
    """One line of a table, with the cells of the columns that are shown."""
    made = Text(no_wrap=True)
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
    return made


def _total(widths: dict[int, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


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
