"""Takes the pictures of the documentation again, into docs/assets/images: `make pictures`.

The dashboard is that of the shop on which the tests run, in both themes. The demo is run in a terminal, and
what it has printed at the end is drawn as an SVG.
"""

import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from fcntl import ioctl
from itertools import groupby
from pathlib import Path

import pyte
from pyte.screens import Char
from rich.console import Console
from rich.style import Style
from rich.text import Text

from tests.support import chromium
from tests.support.chromium import Visits
from tests.support.databases import SQLiteFactory
from tests.support.live_dashboard import serving
from tests.support.processes import ROOT

FOLDER = ROOT / "docs" / "assets" / "images"
#: The size of a picture of the dashboard.
WIDTH, HEIGHT = 1280, 720
COLUMNS, ROWS = 110, 45
#: How rich and pyte name some colors.
_COLORS = {"brown": "yellow"}


def take_dashboard() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(SQLiteFactory(Path(folder)).create()) as live,
        chromium.started() as browser,
    ):
        visits = Visits(browser, live.origin)
        for theme in ("light", "dark"):
            page = visits.page("/", color_scheme=theme, viewport={"width": WIDTH, "height": HEIGHT})
            page.locator(".charts canvas").first.wait_for()
            page.screenshot(path=FOLDER / f"dashboard-{theme}.png")
        visits.close()
        if visits.problems:
            raise SystemExit("\n".join(visits.problems))


def draw_demo() -> None:
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [sys.executable, "examples/demo.py"], cwd=ROOT, stdout=theirs, stderr=theirs, env=environment
    ) as demo:
        os.close(theirs)
        while chunk := _read(ours):
            stream.feed(chunk)
    if demo.returncode:
        raise SystemExit("\n".join(screen.display))
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text("$ make demo", style="bold"))
        console.print("…")
        for row in range(_first(screen.display), ROWS):
            cells = [screen.buffer[row][column] for column in range(COLUMNS)]
            if any(cell.data.strip() for cell in cells):
                parts = [
                    ("".join(cell.data for cell in same), style) for style, same in groupby(cells, _style)
                ]
                console.print(Text.assemble(*parts), soft_wrap=True)
        drawn = console.export_svg(title="make demo", unique_id="demo")
    # A picture loads nothing.
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    (FOLDER / "demo.svg").write_text(drawn.replace("Fira Code", "ui-monospace"))


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when nobody has the other end any more.
        return b""


def _first(lines: list[str]) -> int:
    """The first row of the picture. The tracebacks before it name files of this machine."""
    return next(row for row, line in enumerate(lines) if "cancelled 3 jobs" in line)


def _style(cell: Char) -> Style:
    color = _COLORS.get(cell.fg, cell.fg)
    if re.fullmatch("[0-9a-f]{6}", color):
        color = f"#{color}"
    return Style(color=color.replace("bright", "bright_"), bold=cell.bold, italic=cell.italics)


def main() -> int:
    if chromium.find() is None:
        print(chromium.ADVICE, file=sys.stderr)
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    draw_demo()
    take_dashboard()
    return 0


if __name__ == "__main__":
    sys.exit(main())
