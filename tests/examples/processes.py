"""The processes of an example, started as its README describes and observed by their output."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL

from tests.support.processes import ROOT
from tests.support.waiting import Deadline

EXAMPLES = ROOT / "examples"
T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float = 30.0) -> T:
    """Wait until a condition is true, longer on a busy machine; returns its value."""
    deadline = Deadline(seconds)
    while not (value := condition()):
        assert not deadline.passed(), f"not within {seconds} s: {condition}"
        time.sleep(0.01)
    return value


def text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def environment(**more: str) -> Mapping[str, str]:
    """Environment variables that use this checkout and turn warnings into errors."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("OBAN_", "UVICORN_"))}
    return {**inherited, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **more}


class Process:
    """A process in the folder of the examples that prints to a file."""

    def __init__(self, log: Path, *command: str, **variables: str) -> None:
        self._log = log
        self._asked = False
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=EXAMPLES,
                env=environment(**variables),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def printed(self) -> str:
        return self._log.read_text()

    def says(self, pattern: str) -> re.Match[str]:
        """Wait until the output matches a pattern; fails if the process ends first."""

        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.printed())
            assert match or self._process.poll() is None, self.printed()
            return match

        match = until(found)
        assert match is not None
        return match

    def terminate(self) -> None:
        """Send SIGTERM, but only once: a second one would cut the grace period short."""
        if self._asked:
            return
        self._asked = True
        self._process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """Wait for the process to end; returns its exit code."""
        return self._process.wait()

    def kill(self) -> None:
        """Kill the process and everything that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def finish(*command: str, **variables: str) -> str:
    """Run a command that must succeed; returns its output."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=EXAMPLES,
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout
