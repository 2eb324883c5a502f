"""Workers for nodes of this library. Those in `oban_py/shop.py` have the same names and behaviour."""

import asyncio
from typing import Any

from oban import Cancel, Job, Record, Snooze, Worker
from tests.support.options import BRIEF

#: The options of a node that finds nothing by polling.
OURS: dict[str, Any] = {
    "node": "ours",
    "queues": {"images": 5},
    **dict.fromkeys(("poll_interval", "stage_interval", "watch_interval", "control_interval"), 300.0),
    **BRIEF,
}
FIELDS = ("worker", "queue", "args", "meta", "tags", "priority", "attempt", "max_attempts", "errors")

#: The fields that each attempt received, in order.
seen: list[Job] = []
#: The ids of jobs that may end.
finished: set[int] = set()


class Resize(Worker, name="shop.Resize", queue="images", max_attempts=5):
    """Has the name that oban-py derives."""

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
    """A worker that only nodes of this library have."""
