"""Ctrl+C while a sync test runs an async worker."""

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, os, signal
from oban import Worker, testing

class Deaf(Worker, name="Deaf"):
    async def process(self, job):
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass

try:
    testing.process_job(Deaf.new())
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.timeout(60)
def test_python_ends_although_the_worker_does_not() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30)
    assert (ended.stdout, ended.returncode) == ("interrupted\n", 0), ended.stderr
