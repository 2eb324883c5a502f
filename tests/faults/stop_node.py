"""Nodes that tests stop. As a program, it starts them faster than a new interpreter could.

It has imported everything, and forks a node for each line of its input: a JSON list of a file for the output
and the arguments of `oban`. The node has default signal dispositions. The program prints `N started` for the
process N, and `N ended CODE`.
"""

import asyncio
import importlib
import json
import os
import signal
import sys
from typing import Any, NoReturn

from oban import Job, Worker
from oban.cli import main


class Long(Worker, name="long"):
    """Runs until it is interrupted."""

    async def process(self, job: Job) -> None:
        print(f"long {job.id} has begun", flush=True)
        await asyncio.sleep(3600)


class Brief(Worker, name="brief"):
    """Ends on its own."""

    async def process(self, job: Job) -> None:
        await asyncio.sleep(0.05)


def _reap(*_: Any) -> None:
    while True:
        try:
            process, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if process == 0:
            return
        os.write(1, f"{process} ended {os.waitstatus_to_exitcode(status)}\n".encode())


def _become(output: str, *arguments: str) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.exit(main(arguments))


def serve() -> None:
    """Start nodes until the input ends."""
    for module in ("aiosqlite", "asyncpg", "uvloop"):
        # A node imports these while it starts.
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, _reap)
    for line in sys.stdin:
        arguments = json.loads(line)
        process = os.fork()
        if process == 0:
            _become(*arguments)
        os.write(1, f"{process} started\n".encode())


if __name__ == "__main__":
    serve()
