"""A runner in its own process: `python -m tests.runner.node URL LEDGER LIMIT POLL_INTERVAL`.

Prints "ready" when it runs, and stops when its input is closed.
"""

import asyncio
import logging
import os
import sys
from typing import TextIO

from oban import Cancel, Job, Oban, Worker

ledger: TextIO


class Noted(Worker, name="tests.node.Noted"):
    """Writes the id of its job into the ledger of the process that runs it."""

    async def process(self, job: Job) -> None:
        ledger.write(f"{job.id}\n")


class Watchful(Worker, name="tests.node.Watchful"):
    """Prints when it starts, and when it sees that its job was cancelled."""

    async def process(self, job: Job) -> Cancel:
        print("started", flush=True)
        pause = asyncio.Event()
        while not job.cancelled():
            try:
                await asyncio.wait_for(pause.wait(), 0.01)
            except TimeoutError:
                continue
        print("cancelled", flush=True)
        return Cancel(f"seen by process {os.getpid()}")


async def main(url: str, limit: int, poll_interval: float) -> None:
    async with Oban(
        url,
        node=f"process-{os.getpid()}",
        queues={"default": limit},
        poll_interval=poll_interval,
        stage_interval=poll_interval,
        watch_interval=poll_interval,
    ):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    with open(sys.argv[2], "w") as ledger:
        asyncio.run(main(sys.argv[1], int(sys.argv[3]), float(sys.argv[4])))
