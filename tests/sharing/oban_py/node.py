"""A node of oban-py, told what to do by lines of JSON on stdin; it answers each with one on stdout."""

import asyncio
import json
import logging
import sys

import shop
from psycopg_pool import AsyncConnectionPool

from oban import Job, Oban

STATES = {
    *("available", "scheduled", "suspended", "executing"),
    *("retryable", "completed", "discarded", "cancelled"),
}


class Node:
    def __init__(self):
        self.oban = self.pool = None
        self.complaints = []

    async def start(self, dsn, **options):
        self.complaints.clear()
        shop.seen.clear()
        shop.finished.clear()
        self.pool = AsyncConnectionPool(dsn, min_size=1, max_size=4, open=False)
        await self.pool.open(wait=True)
        self.oban = await Oban(pool=self.pool, **options).start()
        for channel in ("insert", "signal"):
            # Returns when the channel is listened to.
            await self.oban._notifier.listen(channel, lambda *_: None)

    async def stop(self):
        """Ends the node; the warnings and errors that it came to log."""
        if self.oban is not None:
            await self.oban.stop()
            await self.pool.close()
            self.oban = self.pool = None
        return self.complaints

    async def enqueue(self, **fields):
        return shown(await self.oban.enqueue(Job(**fields)))

    async def get(self, id_):
        return shown(await self.oban.get_job(id_))

    async def all(self):
        return [shown(job) for job in await self.oban._query.all_jobs(sorted(STATES))]

    async def call(self, method, *args, **kwargs):
        """Any method of the client; what it returns, as far as that is JSON."""
        result = await getattr(self.oban, method)(*args, **kwargs)
        return result if isinstance(result, (int, bool, type(None))) else str(result)

    async def seen(self):
        return shop.seen

    async def finish(self, id_):
        shop.finished.add(id_)

    async def queues(self):
        return {info.queue: [info.limit, info.paused] for info in self.oban.check_all_queues()}

    async def running(self):
        return [id_ for info in self.oban.check_all_queues() for id_ in info.running]

    async def leads(self):
        return self.oban.is_leader


def shown(job):
    slots = {name: getattr(job, name) for name in Job.__slots__ if not name.startswith("_")}
    return {
        name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in slots.items()
    }


async def main():
    node = Node()
    loop = asyncio.get_running_loop()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: node.complaints.append(handler.format(record))
    logging.getLogger().addHandler(handler)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        method, args, kwargs = json.loads(line)
        try:
            async with asyncio.timeout(30):
                answer = {"result": await getattr(node, method)(*args, **kwargs)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


asyncio.run(main())
