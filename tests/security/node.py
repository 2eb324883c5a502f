"""A node that reports what it imported because of rows: `python -m tests.security.node URL`.

It prints "ready" when it runs. When its input is closed, it stops and prints the modules that it has
imported since then, as JSON.
"""

import asyncio
import json
import logging
import sys

from oban import Job, JobState, Oban, Worker, job
from tests.support.waiting import eventually


class Registered(Worker, name="tests.security.Registered"):
    """Reads every field of its job."""

    async def process(self, job: Job) -> None:
        repr((job, job.args, job.meta, job.tags, job.errors, job.attempted_by))


class Fails(Worker, name="tests.security.Fails", max_attempts=1):
    async def process(self, job: Job) -> None:
        raise ValueError("as it does")


@job(name="tests.security.greet", max_attempts=1)
async def greet(name: str) -> None:
    await asyncio.sleep(0)


def helper(job: Job) -> None:
    """Exists, but must not be called."""
    print("called", flush=True)


async def ended(oban: Oban) -> bool:
    return not {job.state for job in await oban.list_jobs()} & {JobState.AVAILABLE, JobState.EXECUTING}


async def main(url: str) -> None:
    async with Oban(url, queues={"default": 5}, poll_interval=0.1) as oban:
        # The first run imports modules; do that now.
        unknown = Job(worker="tests.security.Nobody", max_attempts=1)
        first = [
            Registered.new(),
            Fails.new(),
            greet.new("you"),
            Job(worker=greet.worker.worker_name),
            unknown,
        ]
        await oban.enqueue_many(first)
        await eventually(lambda: ended(oban))
        before = set(sys.modules)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        after = set(sys.modules)
    print(json.dumps(sorted(after - before)), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)
    asyncio.run(main(sys.argv[1]))
