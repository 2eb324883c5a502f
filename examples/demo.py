"""Enqueues one job per file of a folder, runs and manages the jobs, and shows what happens.

    python examples/demo.py                                      # the standard library, on SQLite
    python examples/demo.py --folder docs --database-url postgresql+asyncpg://me@localhost/mine
    python examples/demo.py --web                                # with the dashboard, until Ctrl-C

Read it from top to bottom. The display and the final check are in `demo_support.py`.
"""

import argparse
import asyncio
import hashlib
import sys
import uuid
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from demo_support import ENDED, Plan, Say, find_files, report, watching
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Cancel, Job, JobState, Oban, ObanError, Record, Worker, migration

# The queues of this run and their limits. The names are unique to each run, so that the demo touches and
# counts only its own jobs in a database that has others.
RUN = uuid.uuid4().hex[:6]
FILES, FLAKY, ENDLESS = f"files-{RUN}", f"flaky-{RUN}", f"endless-{RUN}"
QUEUES = {FILES: 20, FLAKY: 2, ENDLESS: 3}
FEW = 3  # jobs of each unusual kind

# -- 1. Workers: a class with `process` and the default options of its jobs ------------------------


class ReadFile(Worker, queue=FILES, max_attempts=3, tags=["demo"]):
    """Records facts about a file. A plain `def` runs in a thread, so reading does not block other jobs."""

    def process(self, job: Job) -> Record:
        content = Path(job.args["path"]).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return Record({"lines": content.count(b"\n"), "bytes": len(content), "sha256": digest})

    def backoff(self, job: Job) -> float:
        return 0.5 * job.attempt  # seconds until the next attempt; the default is longer


class FlakyReadFile(ReadFile, queue=FLAKY):
    """Fails twice. A job whose worker raises an exception is retried while it has attempts left."""

    def process(self, job: Job) -> Record:
        if job.attempt < 3:
            raise OSError(f"the disk is busy, attempt {job.attempt}")
        return super().process(job)


class DigestForever(Worker, queue=ENDLESS, tags=["demo"]):
    """Runs until it is cancelled. An `async def` runs on the event loop; this one stops between rounds."""

    async def process(self, job: Job) -> Cancel:
        digest, rounds = job.args["path"].encode(), 0
        while not job.cancelled():
            digest, rounds = hashlib.sha256(digest).digest(), rounds + 1
            await asyncio.sleep(0.01)
        return Cancel(f"stopped at a safe point, after {rounds} rounds")


# -- 2. Enqueue, and manage while the jobs run -----------------------------------------------------


def make_plan(files: list[Path]) -> Plan:
    """Create the jobs without enqueueing them, grouped by what the demo does with them."""
    args, tomorrow = iter([{"path": str(path)} for path in files]), timedelta(days=1)
    return {
        "retried": [FlakyReadFile.new(next(args)) for _ in range(FEW)],
        "cancelled": [DigestForever.new(next(args)) for _ in range(FEW)],
        "rescheduled": [ReadFile.new(next(args), schedule_in=tomorrow) for _ in range(FEW)],
        "deleted": [ReadFile.new(next(args), schedule_in=tomorrow)],
        "completed": [ReadFile.new(each) for each in args],
    }


async def work(oban: Oban, plan: Plan, say: Say) -> None:
    """Enqueue and manage the jobs of the plan, and return when all have ended."""
    jobs = await oban.enqueue_many(job for kind in plan.values() for job in kind)
    say(f"enqueued {len(jobs):,} jobs in one transaction")

    [unwanted] = plan["deleted"]
    await oban.delete_job(unwanted)
    say(f"deleted job {unwanted.id}, which was scheduled for tomorrow")

    await until(oban, FEW, Job.queue == ENDLESS, Job.state == JobState.EXECUTING)
    await until(oban, len(plan["completed"]) // 2, Job.queue == FILES, Job.state == JobState.COMPLETED)
    count = await oban.cancel_many_jobs(select(Job).where(Job.queue == ENDLESS))
    say(f"cancelled {count} jobs while they were executing")

    updated = await oban.update_many_jobs(plan["rescheduled"], {"schedule_in": 0})
    say(f"updated {len(updated)} jobs that were scheduled for tomorrow to run now")

    await until(oban, len(jobs) - 1, Job.state.in_(ENDED))


async def until(oban: Oban, number: int, *conditions: ColumnElement[bool]) -> None:
    """Wait until `number` jobs of this run match the conditions. `Job` is an ordinary mapped class."""
    matching = select(func.count(Job.id)).where(Job.queue.in_(QUEUES), *conditions)
    while True:
        async with AsyncSession(oban.engine) as session:
            if (await session.scalar(matching) or 0) >= number:
                return
        await asyncio.sleep(0.05)


async def demo(url: str, files: list[Path], port: int | None = None) -> bool:
    """Run the whole demo and print the final table; return whether the check found no problem.

    With a port, the dashboard is served there, and the demo goes on until Ctrl-C.
    """
    if port is not None:
        return await demo_with_dashboard(url, files, port)
    plan, ours = make_plan(files), select(Job).where(Job.queue.in_(QUEUES)).order_by(Job.id)
    # With queues, an Oban runs jobs; at the end of the block it lets running jobs finish.
    async with Oban(url, queues=QUEUES) as oban, watching(oban.engine, QUEUES) as say:
        try:
            async with asyncio.timeout(30 + len(files) / 20):
                await work(oban, plan, say)
        except TimeoutError:
            say("gave up waiting")  # the check says for what
        except asyncio.CancelledError:  # Ctrl-C: leave no job that would still run
            say(f"interrupted: cancelled {await oban.cancel_many_jobs(ours):,} jobs")
            raise
    # Without queues, it is only a client. This one reads everything from the database.
    async with Oban(url) as oban:
        return report(plan, await oban.list_jobs(ours))


async def demo_with_dashboard(url: str, files: list[Path], port: int) -> bool:
    """Run the demo while the dashboard is served, and keep jobs moving there until Ctrl-C."""
    import demo_web  # needs the extra `web`

    async with (
        Oban(url, name="demo", queues=demo_web.QUEUES) as oban,
        demo_web.serving(oban, port) as address,
    ):
        print(f"The dashboard is at {address}", flush=True)
        succeeded = await demo(url, files)
        print(f"The dashboard stays at {address} until Ctrl-C, with jobs that come and go.", flush=True)
        await asyncio.Event().wait()
    return succeeded


# -- 3. The command --------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description="Run one Oban job per file of a folder, and watch.")
    parser.add_argument("--database-url", help="default: SQLite, in a temporary file")
    parser.add_argument("--folder", type=Path, help="default: the sources of Python's standard library")
    parser.add_argument("--web", type=int, nargs="?", const=4000, metavar="PORT", help="serve the dashboard")
    options = parser.parse_args()
    try:
        files = find_files(options.folder, at_least=4 * FEW)
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            url = options.database_url or f"sqlite+aiosqlite:///{folder}/demo.db"
            migration.upgrade(url)  # creates the tables if they do not exist
            succeeded = asyncio.run(demo(url, files, options.web))
            print("Look at it in the browser, while jobs run: make demo WEB=1")
            return 0 if succeeded else 1
    except KeyboardInterrupt:
        return 130
    except (ObanError, SQLAlchemyError, OSError) as error:
        print(f"demo: {getattr(error, 'orig', None) or error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
