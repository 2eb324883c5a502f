"""Runs `oban start` in the process of a test, without its node."""

import asyncio
import sys
from pathlib import Path

import pytest

from oban import Oban


def record_starts(monkeypatch: pytest.MonkeyPatch) -> list[Oban]:
    """Collect the instances that `oban start` would run, in this process."""
    made: list[Oban] = []
    monkeypatch.setattr("oban.cli.node.run", lambda instance, *_: made.append(asyncio.run(instance)))
    # What only a separate process can change.
    monkeypatch.setattr("oban.stop_signals.exit_on_signals", lambda: None)
    monkeypatch.setattr("oban.cli.logs.Console.apply", lambda self: None)
    monkeypatch.setattr("gc.freeze", lambda: None)
    monkeypatch.setattr("sys.path", [*sys.path])
    return made


#: Python imports this module before any other. A supervisor waits for a frozen node for 3 s instead of 10 s
#: until it calls it silent, and for 2 s instead of 5 s when it asks for its metrics.
_IMPATIENT = """
from oban.cli import metrics_server, reports
reports.REPORT_TIMEOUT = 3.0
metrics_server.NODE_TIMEOUT = 2.0
"""


def make_impatient(folder: Path) -> None:
    """Write a module into a folder that makes the supervisors impatient that run with it on `PYTHONPATH`."""
    (folder / "sitecustomize.py").write_text(_IMPATIENT)
