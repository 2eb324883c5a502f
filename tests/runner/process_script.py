"""A script that defines a worker and runs a node: `python tests/runner/process_script.py URL [unguarded]`.

It runs one job in a child process, and prints how the job ended.
"""

import asyncio
import sys

from oban import Job, JobState, Oban, Record, Worker
from tests.support.jobs import reaches


class InMain(Worker, executor="process"):
    def process(self, job: Job) -> Record:
        return Record(__name__)


async def main(url: str) -> None:
    async with Oban(url, queues={"default": 1}, shutdown_grace_period=30) as oban:
        job = await oban.enqueue(InMain.new())
        row = await reaches(oban, job, JobState.COMPLETED, JobState.RETRYABLE, timeout=30)
        print(row.worker, row.state, row.meta, row.errors)


if __name__ == "__main__" or "unguarded" in sys.argv:
    asyncio.run(main(sys.argv[1]))
