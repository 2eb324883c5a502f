"""A table on the screen of `oban top`: its rows, the one that is selected, and how they are sorted."""

from dataclasses import replace
from typing import Any, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget

from oban.cli.columns import Column, fit, line, natural_widths
from oban.cli.top.snapshot import Snapshot
from oban.cli.top.tables import Kind

_HEADING = "bold"
_FOCUSED = "bold reverse"


class Panel(Widget, can_focus=True):
    """One of the tables: a line of headings, and as many rows as fit."""

    DEFAULT_CSS = """
    Panel { height: 3; width: 100%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)"),
        Binding("down,j", "move(1)"),
        Binding("pageup", "page(-1)"),
        Binding("pagedown", "page(1)"),
        Binding("home", "move(-1000000)"),
        Binding("end", "move(1000000)"),
        Binding("s", "sort"),
        Binding("enter", "open"),
    ]

    class Opened(Message):
        """Enter was pressed on a row."""

        def __init__(self, row: Any) -> None:
            super().__init__()
            self.row = row

    def __init__(self, kind: Kind[Any]) -> None:
        super().__init__(id=kind.name)
        self.kind = kind
        self._rows: list[Any] = []
        self._sort = 0
        self._cursor = 0
        self._top = 0
        #: The widths of the texts. They only grow until the size changes, so that columns do not jump.
        self._natural: list[int] = []

    @property
    def selected(self) -> Any | None:
        """The row that is selected, or None if there are no rows."""
        return self._rows[self._cursor] if self._rows else None

    @property
    def lines(self) -> int:
        """How many lines it needs to show everything."""
        return 1 + max(1, len(self._rows))

    def show(self, snapshot: Snapshot) -> None:
        """Show the rows of a snapshot; the same row stays selected, if it is still there."""
        selected = self.selected
        self._rows = sorted(self.kind.rows(snapshot), key=self.kind.sorts[self._sort].key)
        self._cursor = min(self._cursor, max(0, len(self._rows) - 1))
        if selected is not None:
            key = self.kind.key(selected)
            places = (place for place, row in enumerate(self._rows) if self.kind.key(row) == key)
            self._cursor = next(places, self._cursor)
        self.refresh()

    def action_move(self, rows: int) -> None:
        self._cursor = max(0, min(len(self._rows) - 1, self._cursor + rows))
        self.refresh()

    def action_page(self, pages: int) -> None:
        self.action_move(pages * max(1, self.size.height - 1))

    def action_sort(self) -> None:
        self._sort = (self._sort + 1) % len(self.kind.sorts)
        self._rows.sort(key=self.kind.sorts[self._sort].key)
        # What was asked for is the beginning of the new order.
        self._cursor = 0
        self.refresh()

    def action_open(self) -> None:
        if (row := self.selected) is not None:
            self.post_message(self.Opened(row))

    def on_resize(self) -> None:
        self._natural = []

    def render(self) -> Text:
        width, height = self.size
        columns = self._columns()
        cells = [self.kind.cells(row) for row in self._rows]
        natural = natural_widths(columns, cells)
        if len(self._natural) == len(natural):
            natural = list(map(max, natural, self._natural))
        self._natural = natural
        widths = fit(columns, natural, width)
        headings = [Text(column.heading) for column in columns]
        made = _filled(line(columns, headings, widths), width)
        made.stylize(_FOCUSED if self.has_focus else _HEADING)
        if not cells:
            return Text("\n", end="").join([made, Text(self.kind.empty, style="dim")])
        first = self._first(height - 1)
        lines = [made]
        for place, row in enumerate(cells[first : first + max(0, height - 1)], first):
            text = _filled(line(columns, row, widths), width)
            if place == self._cursor and self.has_focus:
                text.stylize("reverse")
            lines.append(text)
        return Text("\n", end="").join(lines)

    def _columns(self) -> list[Column]:
        sort = self.kind.sorts[self._sort].column
        columns = []
        for index, column in enumerate(self.kind.columns):
            heading = column.heading
            if index == 0 and len(self._rows) > self.size.height - 1:
                heading = f"{heading} {self._cursor + 1}/{len(self._rows)}"
            if index == sort:
                heading += "▾"
            columns.append(column if heading == column.heading else replace(column, heading=heading))
        return columns

    def _first(self, height: int) -> int:
        """The first row to show, so that the selected one is among them."""
        top = min(self._top, max(0, len(self._rows) - height))
        self._top = max(min(top, self._cursor), self._cursor - height + 1, 0)
        return self._top


def _filled(text: Text, width: int) -> Text:
    """The text, so long that its style covers the whole line."""
    text.truncate(width, pad=True)
    text.end = ""
    return text
