"""The dialogs of `oban top`: a question, a value to type, and a text to read."""

from collections.abc import Callable
from typing import ClassVar

from rich.console import RenderableType
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

_STYLE = """
{name} {{ align: center middle; }}
{name} > Vertical {{
    width: auto; max-width: 100%; min-width: 40; height: auto; padding: 0 1; border: round ansi_default;
    background: ansi_default;
}}
{name} Static {{ width: auto; max-width: 100%; }}
"""


class Confirmation(ModalScreen[bool]):
    """A question about a change. Only `y` agrees."""

    DEFAULT_CSS = _STYLE.format(name="Confirmation")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,Y", "answer(True)"),
        Binding("n,N,escape,q,ctrl+c,enter", "answer(False)"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Text(self._question))
            yield Static(Text.assemble("\n", ("y", "bold"), " yes   ", ("n", "bold"), " no"))

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)


class Prompt(ModalScreen[str | None]):
    """A value to type. The result is None if Escape was pressed."""

    DEFAULT_CSS = _STYLE.format(name="Prompt") + (
        "Prompt Input, Prompt Input:focus { width: 46; height: 1; border: none; padding: 0; }"
    )
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,ctrl+c", "leave")]

    def __init__(self, label: str, value: str, problem: Callable[[str], str | None]) -> None:
        super().__init__()
        self._label = label
        self._value = value
        self._problem = problem

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Text(self._label))
            yield Input(self._value)
            yield Static(Text("Enter to apply, Escape to leave it as it is", style="dim"), id="hint")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        value = event.value.strip()
        if problem := self._problem(value):
            self.query_one("#hint", Static).update(Text(problem, style="red"))
            # What is typed next replaces the wrong value.
            event.input.action_select_all()
        else:
            self.dismiss(value)

    def action_leave(self) -> None:
        self.dismiss(None)


class Reader(ModalScreen[str | None]):
    """A text to read, with a title. The result is the key of an action that was pressed, or None."""

    DEFAULT_CSS = """
    Reader > #title { height: 1; width: 100%; text-style: bold reverse; }
    Reader > VerticalScroll { height: 1fr; background: ansi_default; scrollbar-size-vertical: 1; }
    Reader #text { width: 100%; }
    Reader > #keys { height: 1; width: 100%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,ctrl+c,question_mark", "leave"),
        *(Binding(key, f"act({key!r})") for key in "crd"),
        Binding("up,k", "scroll(-1)"),
        Binding("down,j", "scroll(1)"),
        Binding("pageup", "page(-1)"),
        Binding("pagedown,space", "page(1)"),
        Binding("home", "scroll(-1000000)"),
        Binding("end", "scroll(1000000)"),
    ]

    def __init__(self, title: str, text: Text, *, actions: str = "", keys: Text | None = None) -> None:
        super().__init__()
        self._heading = title
        self._text = text
        self._actions = actions
        self._keys = keys or Text.assemble(("Escape", "bold"), " back")

    def compose(self) -> ComposeResult:
        yield Static(Text(self._heading, no_wrap=True), id="title")
        with VerticalScroll(can_focus=False):
            yield Static(self._text, id="text")
        yield Static(self._keys, id="keys")

    def show(self, text: RenderableType) -> None:
        """Replace the text."""
        self.query_one("#text", Static).update(text)

    def show_problem(self, problem: str) -> None:
        self.show(Text(problem, style="red"))

    def action_scroll(self, lines: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    def action_page(self, pages: int) -> None:
        area = self.query_one(VerticalScroll)
        area.scroll_relative(y=pages * max(1, area.size.height - 1), animate=False)

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_act(self, key: str) -> None:
        if key in self._actions:
            self.dismiss(key)
