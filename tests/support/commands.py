"""An application for tests of the command line, and its processes."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from click.testing import CliRunner, Result
from sqlalchemy import URL

from oban.cli import main
from tests.support.log_state import logging_restored

WORKERS = """
import asyncio
from oban import Record, Worker

class Echo(Worker, name="echo"):
    async def process(self, job):
        return Record(job.args)

class Brief(Worker, name="brief"):
    async def process(self, job):
        await asyncio.sleep(job.args["seconds"])

class Slow(Worker, name="slow"):
    async def process(self, job):
        print("slow has begun", flush=True)
        await asyncio.sleep(3600)
"""


def text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def invoke(*arguments: str, **environment: str | None) -> Result:
    """Run a command in this process, which takes a tenth of the time of a process of its own."""
    with logging_restored():
        result = CliRunner().invoke(main, arguments, env=environment)
    # Any other exception would be a traceback.
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result


def oban(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, for tests of the process."""
    return subprocess.run(
        [sys.executable, "-m", "oban", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@contextmanager
def node(*arguments: str, through: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """Start a node, maybe through another program."""
    with subprocess.Popen(
        [*through, sys.executable, "-m", "oban", "start", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(process: subprocess.Popen[str], words: str) -> list[str]:
    """Read the lines that a process prints, up to the first one that contains these words."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError(f"{words!r} was never printed: {lines}")
