"""A node in its own process: `python -m tests.faults.node '{"url": …, "options": {…}}'`.

The keys are `url`; `options`, keyword arguments of `Oban`; `skew`, by how many seconds its wall clock is
wrong; `fast`, how its time of jobs passes (see `fast_time`); `connect_args` of the driver; and `modules` that
define workers. The node prints "ready" on stderr when it runs jobs, and when it was paused as the machine was
too busy. It stops at SIGTERM and SIGINT like `oban start`, and ends with the process that started it, even
while it is frozen.
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
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import create_async_engine

from oban import Oban, clock
from oban.errors import DatabaseUnavailable

#: A process that sleeps for `TICK` seconds and wakes up after more than `LATE` seconds was paused.
TICK, LATE = 0.05, 0.25
#: The first word of the line in which it says so, followed by two times in seconds since 1970.
PAUSED = "paused"


class Skewed(clock.Clock):
    """A wall clock that is wrong."""

    def __init__(self, seconds: float) -> None:
        self._off = timedelta(seconds=seconds)

    def now(self) -> datetime:
        return super().now() + self._off


def fast_time(fast: dict[str, Any]) -> datetime:
    """The time of jobs now: it was `start` at `since`, and passes `speed` times as fast as real time.

    It is the same in all processes.
    """
    start = datetime.fromisoformat(fast["start"])
    return start + timedelta(seconds=(time.time() - fast["since"]) * fast["speed"])


def move_fast(moving: clock.MovableClock, fast: dict[str, Any]) -> None:
    while True:
        time.sleep(0.1)
        moving.move_to(fast_time(fast))


@contextlib.contextmanager
def clock_of(config: dict[str, Any]) -> Iterator[None]:
    """The clock of this process."""
    if "skew" in config:
        with clock.use(Skewed(config["skew"])):
            yield
    elif "fast" in config:
        with clock.use(clock.MovableClock(fast_time(config["fast"]))) as moving:
            threading.Thread(target=move_fast, args=(moving, config["fast"]), daemon=True).start()
            yield
    else:
        yield


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, as a frozen process could not notice that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() == 1:
            os._exit(1)


def note_pauses() -> None:
    """Print from when to when this process did not run, because the machine had no time for it."""
    since: float | None = None
    while True:
        before = time.time()
        time.sleep(TICK)
        now = time.time()
        if now - before > LATE:
            # Pauses with a moment between them are one: a heartbeat takes longer than that.
            since = before if since is None else since
        elif since is not None:
            # One write, so that no log record of another thread comes in between.
            sys.stderr.write(f"{PAUSED} {since} {before}\n")
            since = None


def show_tasks() -> None:
    """Print the stack of each task, for a test that failed."""
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)


async def start(oban: Oban, asked: asyncio.Event) -> None:
    """Start, and try again while the database cannot be reached or is too slow, as `oban start` does."""
    while not asked.is_set():
        try:
            return await oban.start()
        except DatabaseUnavailable as error:
            print(error, file=sys.stderr, flush=True)
            await asyncio.sleep(0.1)


async def main(config: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    stopping: list[asyncio.Task[None]] = []
    engine: Any = config["url"]
    if "connect_args" in config:
        engine = create_async_engine(engine, connect_args=config["connect_args"])
    oban = Oban(engine, **config["options"])

    def stop() -> None:
        if asked.is_set():
            stopping.append(loop.create_task(oban.stop()))
        asked.set()

    loop.add_signal_handler(signal.SIGUSR1, show_tasks)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await start(oban, asked)
        print("ready", file=sys.stderr, flush=True)
        await asked.wait()
    finally:
        await oban.stop()
    await asyncio.gather(*stopping)


def run(config: dict[str, Any]) -> None:
    """Run a node until it is told to stop, and end the process."""
    die_with_parent()
    faulthandler.register(signal.SIGUSR2)
    threading.Thread(target=note_pauses, daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for module in config.get("modules", ["tests.faults.workers"]):
        importlib.import_module(module)
    with clock_of(config):
        asyncio.run(main(config))
    # Like `oban start`, as Python would wait for a job in a thread.
    logging.shutdown()
    os._exit(0)


def run_forked(config: dict[str, Any], environment: dict[str, str], log: str) -> None:
    """Run a node in a process that was forked for it."""
    os.environ.update(environment)
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    run(config)


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
