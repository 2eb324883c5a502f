"""A runner in a process of its own; by hand: `python -m tests.faults.node '{"url": …, "options": {…}}'`.

What it is told: `url`; `options`, keyword arguments of `Oban`; `skew`, seconds by which its wall clock
is wrong; `connect_args` of the driver; `modules` that define workers. Says "ready" on stderr when it
runs. Stops as `oban start` does on SIGTERM and SIGINT, and dies with the process that started it, frozen
or not.
"""

import asyncio
import contextlib
import ctypes
import faulthandler
import importlib
import json
import logging
import os
import signal
import sys
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import create_async_engine

from oban import Oban, clock


class Skewed(clock.Clock):
    """A wall clock that is wrong."""

    def __init__(self, seconds: float) -> None:
        self._off = timedelta(seconds=seconds)

    def now(self) -> datetime:
        return super().now() + self._off


def die_with_parent() -> None:
    """Be killed when the parent ends; a frozen process could not notice by itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() == 1:
            os._exit(1)


def show_tasks() -> None:
    """Say where each task is, for a test that failed."""
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)


async def main(told: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    stopping: list[asyncio.Task[None]] = []
    engine: Any = told["url"]
    if "connect_args" in told:
        engine = create_async_engine(engine, connect_args=told["connect_args"])
    oban = Oban(engine, **told["options"])

    def stop() -> None:
        if asked.is_set():
            stopping.append(loop.create_task(oban.stop()))
        asked.set()

    loop.add_signal_handler(signal.SIGUSR1, show_tasks)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with oban:
        print("ready", file=sys.stderr, flush=True)
        await asked.wait()
    await asyncio.gather(*stopping)


def run(told: dict[str, Any]) -> None:
    """Be a node until told to stop; ends the process."""
    die_with_parent()
    faulthandler.register(signal.SIGUSR2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for module in told.get("modules", ["tests.faults.workers"]):
        importlib.import_module(module)
    with clock.use(Skewed(told["skew"])) if "skew" in told else contextlib.nullcontext():
        asyncio.run(main(told))
    # As `oban start` does: a job in a thread would be waited for.
    logging.shutdown()
    os._exit(0)


def run_forked(told: dict[str, Any], environment: dict[str, str], log: str) -> None:
    """The same in a process that was forked for it."""
    os.environ.update(environment)
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    run(told)


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
