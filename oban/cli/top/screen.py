"""The screen of `oban top`: it refreshes itself, and its keys act on jobs and queues."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import DescendantFocus, Resize
from textual.widgets import Static

from oban.cli.top import actions, headers
from oban.cli.top.details import describe
from oban.cli.top.dialogs import Confirmation, Prompt, Reader
from oban.cli.top.headers import HELP, keys
from oban.cli.top.layout import divide
from oban.cli.top.panel import Panel
from oban.cli.top.snapshot import ExecutingRow, FailureRow, QueueRow, Snapshot
from oban.cli.top.source import Source, problem
from oban.cli.top.tables import EXECUTING, FAILURES, KINDS, QUEUES
from oban.client import Oban
from oban.error_texts import log_safe

#: Seconds that an action can take, and that its result is shown.
TIMEOUT = 10.0
NOTICE = 6.0
#: Seconds after which the header says that the database has not answered yet.
SLOW = 3.0
#: The pause after a refresh is at least this many times as long as the refresh.
_REST = 4.0
MIN_INTERVAL, MAX_INTERVAL = 0.5, 3600.0
#: From this many lines on, blank lines separate the tables.
_ROOMY = 28


def parse_interval(text: str) -> float:
    """Seconds between two refreshes; raises `ValueError`."""
    seconds = float(text)
    if not MIN_INTERVAL <= seconds <= MAX_INTERVAL:
        raise ValueError(text)
    return seconds


class Top(App[None]):
    """The live view of an instance."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: ansi_default; color: ansi_default; }
    ModalScreen { background: transparent; }
    Reader { background: ansi_default; }
    #header { height: 2; width: 100%; }
    #footer { height: 1; width: 100%; dock: bottom; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c,ctrl+q", "quit", priority=False),
        Binding("right", "app.focus_next"),
        Binding("left", "app.focus_previous"),
        Binding("question_mark,h", "help"),
        Binding("slash", "filter"),
        Binding("i", "interval"),
        Binding("escape", "clear"),
        *(Binding(key, f"job({key!r})") for key in actions.VERBS),
        Binding("p", "pause"),
        Binding("u", "resume"),
        Binding("plus,equals_sign", "scale(1)"),
        Binding("minus", "scale(-1)"),
    ]

    def __init__(self, oban: Oban, source: Source, snapshot: Snapshot, interval: float, filter_: str) -> None:
        # In the colours and on the background of the terminal.
        super().__init__(ansi_color=True)
        self._oban = oban
        self._source = source
        self._snapshot = snapshot
        self._interval = interval
        self._filter = filter_
        self._problem = ""
        #: When the refresh that runs has begun, and when to forget the result of the last action.
        self._reading_since: float | None = None
        self._notice = Text()
        self._notice_until = 0.0
        self._wake = asyncio.Event()
        #: Actions run one after another, in the order of the keys.
        self._turns = asyncio.Lock()
        self._acted_at = 0.0
        #: The limits that keys have set and that no refresh has read yet, by queue.
        self._limits: dict[str, int] = {}

    def compose(self) -> ComposeResult:
        yield Static(id="header")
        for kind in KINDS:
            yield Panel(kind)
        yield Static(id="footer")

    def on_mount(self) -> None:
        self._show()
        self.query_one(f"#{QUEUES.name}").focus()
        self.set_interval(1.0, self._show_lines)
        self.run_worker(self._refresh_forever())

    # -- what is shown -------------------------------------------------------------------------

    async def _refresh_forever(self) -> None:
        """Refresh, one after another. One that takes long is followed by a longer pause."""
        pause = self._interval
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)
            self._wake.clear()
            self._reading_since = time.monotonic()
            filter_ = self._filter
            try:
                snapshot = await self._source.read(filter_)
            # Whatever is wrong with the database can end.
            except Exception as error:
                self._problem = problem(self._oban, error)
            else:
                self._problem = ""
                self._snapshot = snapshot
                if self._acted_at < self._reading_since:
                    self._limits.clear()
            pause = max(self._interval, _REST * (time.monotonic() - self._reading_since))
            self._reading_since = None
            self._show()

    def _show(self) -> None:
        for panel in self._panels():
            panel.show(self._snapshot)
        self._arrange()
        self._show_lines()

    def _show_lines(self) -> None:
        """Show the header and the footer."""
        width = self.size.width
        status = self._problem
        if (since := self._reading_since) is not None and (waited := time.monotonic() - since) > SLOW:
            status = f"the database has not answered for {waited:.0f} s"
        base = self.screen_stack[0]
        text = headers.header(self._snapshot, width, self._interval, self._filter, status)
        base.query_one("#header", Static).update(text)
        footer = self._notice if time.monotonic() < self._notice_until else keys(self._focused_kind(), width)
        base.query_one("#footer", Static).update(footer)

    def _arrange(self) -> None:
        panels = self._panels()
        lines = self.size.height - 3
        gap = 1 if lines >= _ROOMY else 0
        focused = next((place for place, panel in enumerate(panels) if panel.kind is self._focused_kind()), 0)
        heights = divide(lines - gap * len(panels), [panel.lines for panel in panels], focused)
        for panel, height in zip(panels, heights, strict=True):
            panel.display = height > 0
            panel.styles.height = height
            panel.styles.margin = (gap, 0, 0, 0)

    def _panels(self) -> list[Panel]:
        return list(self.screen_stack[0].query(Panel))

    def _focused(self) -> Panel | None:
        focused = self.screen_stack[0].focused
        return focused if isinstance(focused, Panel) else None

    def _focused_kind(self) -> Any:
        return panel.kind if (panel := self._focused()) is not None else QUEUES

    def on_resize(self, _: Resize) -> None:
        self.call_after_refresh(self._show)

    def on_descendant_focus(self, _: DescendantFocus) -> None:
        self._arrange()
        self._show_lines()

    def notice(self, text: str, *, good: bool = True) -> None:
        """Show the result of an action in the place of the keys for a moment."""
        self._notice = Text(f" {text}", style="green" if good else "red", no_wrap=True, overflow="ellipsis")
        self._notice_until = time.monotonic() + NOTICE
        self._show_lines()

    # -- keys ----------------------------------------------------------------------------------

    def action_help(self) -> None:
        self.push_screen(Reader("Keys of oban top", HELP))

    def action_filter(self) -> None:
        def apply(value: str | None) -> None:
            if value is not None:
                self._filter = value
                self._refresh_soon()

        label = "Show queues and workers whose name contains:"
        self.push_screen(Prompt(label, self._filter, lambda _: None), apply)

    def action_clear(self) -> None:
        if self._filter:
            self._filter = ""
            self._refresh_soon()

    def action_interval(self) -> None:
        def check(value: str) -> str | None:
            try:
                parse_interval(value)
            except ValueError:
                return f"a number of seconds, from {MIN_INTERVAL} to {MAX_INTERVAL:.0f}, is needed"
            return None

        def apply(value: str | None) -> None:
            if value is not None:
                self._interval = parse_interval(value)
                self._refresh_soon()

        self.push_screen(Prompt("Seconds between two refreshes:", f"{self._interval:g}", check), apply)

    def action_pause(self) -> None:
        if (row := self._queue()) is not None:
            self._run(actions.pause(self._oban, row.queue))

    def action_resume(self) -> None:
        if (row := self._queue()) is not None:
            self._run(actions.resume(self._oban, row.queue))

    def action_scale(self, by: int) -> None:
        if (row := self._queue()) is None:
            return
        if not row.limits:
            self.notice(f"No node runs the queue {log_safe(row.queue)}.", good=False)
            return
        limit = max(1, self._limits.get(row.queue, max(row.limits)) + by)
        self._limits[row.queue] = limit
        self._run(actions.scale(self._oban, row.queue, limit))

    def action_job(self, key: str) -> None:
        panel = self._focused()
        row = panel.selected if panel is not None and panel.kind in (EXECUTING, FAILURES) else None
        if row is None:
            self.notice("Select a job first, with Tab and the arrow keys.", good=False)
        else:
            self._confirm(key, row)

    def _queue(self) -> QueueRow | None:
        panel = self._focused()
        row = panel.selected if panel is not None and panel.kind is QUEUES else None
        if row is None:
            self.notice("Select a queue first, with Tab and the arrow keys.", good=False)
        return row

    def _confirm(self, key: str, row: ExecutingRow | FailureRow) -> None:
        async def change() -> tuple[bool, str]:
            return await actions.change_job(self._oban, key, row.id)

        def answer(agreed: bool | None) -> None:
            if agreed:
                self._run(change())

        verb, _ = actions.VERBS[key]
        state = row.state if isinstance(row, FailureRow) else "executing"
        question = f"{verb} job {row.id} of {log_safe(row.worker, 60)}, which is {state}?"
        self.push_screen(Confirmation(question), answer)

    def on_panel_opened(self, event: Panel.Opened) -> None:
        row = event.row
        if not isinstance(row, ExecutingRow | FailureRow):
            return
        reader = Reader(
            f" Job {row.id} of {log_safe(row.worker, 60)}",
            Text("reading…", style="dim"),
            actions="".join(actions.VERBS),
            keys=headers.DETAILS_KEYS,
        )

        async def read() -> None:
            async with asyncio.timeout(TIMEOUT):
                reader.show(await describe(self._oban, row.id))

        def act(key: str | None) -> None:
            if key is not None:
                self._confirm(key, row)

        self.push_screen(reader, act)
        self.run_worker(self._caught(read(), reader.show_problem))

    # -- what keys cause -----------------------------------------------------------------------

    def _refresh_soon(self) -> None:
        self._wake.set()
        self._show_lines()

    def _run(self, action: Awaitable[str | tuple[bool, str]]) -> None:
        self._acted_at = time.monotonic()

        async def run() -> None:
            async with self._turns, asyncio.timeout(TIMEOUT):
                result = await action
            self._acted_at = time.monotonic()
            good, text = (True, result) if isinstance(result, str) else result
            self.notice(text, good=good)
            self._refresh_soon()

        self.run_worker(self._caught(run(), lambda text: self.notice(text, good=False)))

    async def _caught(self, work: Awaitable[None], failed: Callable[[str], None]) -> None:
        try:
            await work
        except Exception as error:
            failed(problem(self._oban, error))
