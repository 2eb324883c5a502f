"""Running the commands and the Python of a document as a reader would."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.docs.snippets import fenced

URL = "sqlite+aiosqlite:///app.db"
OBAN = [sys.executable, "-m", "oban"]


def commands(document: str) -> list[list[str]]:
    lines = [line for block in fenced(document, "console") for line in block.splitlines()]
    return [shlex.split(line.removeprefix("$ ")) for line in lines if line.startswith("$ ")]


def run(command: list[str], cwd: Path) -> None:
    program = {"oban": OBAN, "alembic": [sys.executable, "-m", "alembic"]}[command[0]]
    subprocess.run([*program, *command[1:]], cwd=cwd, check=True, capture_output=True)


def define(document: str) -> dict[str, Any]:
    """Execute the Python of a document, block by block, in one module."""
    names: dict[str, Any] = {"__name__": "app.workers"}
    for block in fenced(document, "python"):
        exec(compile(block, document, "exec"), names)
    return names
