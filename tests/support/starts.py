"""Runs `oban start` in the process of a test, without its node."""

import asyncio
import sys

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
