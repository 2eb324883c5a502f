"""Workers of the shop, for nodes of ours; those of `oban_py/shop.py` do the same, under the same name."""

import asyncio
from typing import Any

from oban import Cancel, Job, Record, Snooze, Worker
from tests.support.options import BRIEF

#: A node of ours that finds nothing by looking again.
OURS: dict[str, Any] = {
    "node": "ours",
    "queues": {"images": 5},
    **dict.fromkeys(("poll_interval", "stage_interval", "watch_interval", "control_interval"), 30.0),
    **BRIEF,
}
FIELDS = ("worker", "queue", "args", "meta", "tags", "priority", "attempt", "max_attempts", "errors")

#: What each attempt was given, in the order of the attempts.
seen: list[Job] = []
#: Ids of jobs that wait no longer.
finished: set[int] = set()


class Resize(Worker, name="shop.Resize", queue="images", max_attempts=5):
    """As oban-py names it."""

    async def process(self, job: Job) -> Any:
        seen.append(job)
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

    def backoff(self, job: Job) -> float:
        return float(job.args.get("backoff", 600))


class Ours(Resize, queue="images"):
    """Known to nodes of ours only."""
