"""The dashboard of the demo, and jobs that keep it busy: `python examples/demo.py --web`."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn

from oban import Job, Oban, Worker
from oban.web import dashboard

QUEUES = {"mail": 10, "images": 3, "billing": 2}
HOST = "127.0.0.1"


class SendReceipt(Worker, queue="mail", tags=["demo"]):
    async def process(self, job: Job) -> None:
        await asyncio.sleep(random.uniform(0.05, 0.3))


class Thumbnail(Worker, queue="images", tags=["demo"]):
    """Takes its time, so that its queue falls behind now and then."""

    async def process(self, job: Job) -> None:
        for done in range(5):
            job.progress(done, 5)
            await asyncio.sleep(random.uniform(0.1, 0.5))


class ChargeCard(Worker, queue="billing", max_attempts=3, redact=["card"], tags=["demo"]):
    async def process(self, job: Job) -> None:
        await asyncio.sleep(0.2)
        if random.random() < 0.4:
            raise ValueError(f"the bank has refused the card {job.args['card']}")

    def backoff(self, job: Job) -> float:
        return 5.0 * job.attempt


class Report(Worker, queue="mail", oban="demo", cron="* * * * *", tags=["demo"]):
    """A periodic entry: one job a minute."""

    async def process(self, job: Job) -> None: ...


async def feed(oban: Oban) -> None:
    """Enqueue jobs again and again, more in some minutes than in others."""
    number = 0
    while True:
        number += 1
        customer = {"customer": {"id": number % 7}}
        jobs = [SendReceipt.new({"order": number, **customer}) for _ in range(random.randint(1, 4))]
        jobs += [Thumbnail.new({"image": f"{number}.png"}) for _ in range(random.randint(0, 3))]
        if number % 3 == 0:
            jobs.append(ChargeCard.new({"order": number, "card": "4242424242424242", **customer}))
        if number % 10 == 0:
            jobs.append(SendReceipt.new({"order": number, **customer}, schedule_in=600))
        await oban.enqueue_many(jobs)
        await asyncio.sleep(1)


class Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Ctrl-C is for the demo, which stops the server.
        yield


@asynccontextmanager
async def serving(oban: Oban, port: int) -> AsyncIterator[str]:
    """Serve the dashboard and keep jobs moving until the block ends; yields the address."""
    app = dashboard(oban)
    server = Server(uvicorn.Config(app, host=HOST, port=port, log_level="warning", lifespan="off"))
    tasks = [asyncio.create_task(server.serve())]
    try:
        while not server.started:
            if tasks[0].done():
                raise OSError(f"the dashboard cannot listen on {HOST}:{port}")
            await asyncio.sleep(0.05)
        tasks.append(asyncio.create_task(feed(oban)))
        listening = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://{HOST}:{listening}/"
    finally:
        server.should_exit = True
        for task in tasks[1:]:
            task.cancel()
        await app.aclose()
        await asyncio.gather(*tasks, return_exceptions=True)
