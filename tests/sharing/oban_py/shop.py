"""Workers of the shop, for oban-py: what a job does is in its args, so that a test directs it."""

import asyncio

from oban import Cancel, Record, Snooze, worker

#: What each attempt was given, in the order of the attempts.
seen = []
#: Ids of jobs that wait no longer.
finished = set()


async def act(job):
    seen.append(
        {
            "id": job.id,
            "worker": job.worker,
            "queue": job.queue,
            "args": job.args,
            "meta": job.meta,
            "tags": job.tags,
            "priority": job.priority,
            "attempt": job.attempt,
            "max_attempts": job.max_attempts,
            "errors": job.errors,
        }
    )
    if job.args.get("wait"):
        while not (job.cancelled() or job.id in finished):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        if job.cancelled():
            return Cancel("was told so")
    await asyncio.sleep(job.args.get("nap", 0))
    if job.args.get("fails") == job.attempted_by[0]:
        raise ValueError("not here")
    match job.args.get("do"):
        case "record":
            return Record({"width": 3})
        case "snooze":
            return Snooze(job.args["seconds"])
        case "cancel":
            return Cancel("no such image")
        case "raise":
            raise ValueError("no such image")


@worker(queue="images", max_attempts=5)
class Resize:
    async def process(self, job):
        return await act(job)

    def backoff(self, job):
        return job.args.get("backoff", 600)


@worker(queue="images")
class Theirs(Resize):
    """Known to this node only."""
