"""A shop with a day of jobs behind it, and two nodes that run jobs: what a dashboard is looked at with."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import URL, inspect, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from oban import Job, JobState, Oban, Periodic
from oban.models import Attempt
from tests.support.shop_workers import (
    ArchiveOrder,
    BuildReport,
    ChargeCard,
    ConfirmOrder,
    ImportStock,
    RefreshSearch,
    ResizeImages,
    SendNewsletter,
)
from tests.support.waiting import eventually

#: Jobs that have ended, over the last 20 hours.
HISTORY = 2_400
QUEUES = {"default": 5, "mail": 10, "media": 4, "payments": 3, "imports": 1, "newsletter": 5, "reports": 2}
#: The node that pauses the queue `reports`, and runs fewer queues.
SECOND = {"default": 5, "mail": 10, "reports": 2}
NODES = ("web-1", "web-2")
_COUNTRIES = ("de", "fr", "it", "pl", "se")
_TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/jobs/payments.py", line 41, in process
    self.charge(job.args)
    ~~~~~~~~~~~^^^^^^^^^^
  File "/srv/shop/jobs/payments.py", line 58, in charge
    raise PaymentDeclined(f"the bank refuses order {order}: {reason}")
shop.payments.PaymentDeclined: the bank refuses order %s: %s"""
_REASONS = ("insufficient funds", "the card has expired", "the bank did not answer within 10 s")


@dataclass(frozen=True, slots=True)
class Shop:
    """The running shop.

    Attributes:
        nodes: The clients of the nodes that run jobs.
        oban: A client that runs nothing, for the dashboard and for tests.
    """

    nodes: tuple[Oban, ...]
    oban: Oban

    async def job(self, *conditions: Any) -> Job:
        """The newest job that fulfils conditions."""
        found = await self.oban.list_jobs(select(Job).where(*conditions).order_by(Job.id.desc()), limit=1)
        return found[0]


@asynccontextmanager
async def running(url: URL, history: int = HISTORY) -> AsyncIterator[Shop]:
    """A shop on an empty database with the schema, whose long jobs run and whose other jobs have ended."""
    periodic = list(_entries())
    options: dict[str, Any] = {
        "shutdown_grace_period": 0.2,
        "progress_interval": 0.1,
        "heartbeat_interval": 1.0,
    }
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Oban(url, node="console"))
        await _fill(client.engine, history)
        nodes = (
            Oban(url, node=NODES[0], queues=QUEUES, periodic=periodic, **options),
            Oban(url, node=NODES[1], queues=SECOND, periodic=periodic, **options),
        )
        await client.pause_queue("newsletter")
        await client.pause_queue("reports", node=NODES[1])
        for node in nodes:
            await stack.enter_async_context(node)
        await client.pause_periodic("stock: nightly import")
        await client.update_periodic("reports: weekly", expression="30 6 * * mon")
        await eventually(lambda: _is_busy(client), timeout=30)
        yield Shop(nodes, client)


async def _is_busy(oban: Oban) -> bool:
    counts = await oban.count_jobs()
    is_drained = not counts.get("mail", {}).get("available") and not counts["payments"].get("available")
    progress = [
        job.current_progress
        for job in await oban.list_jobs(select(Job).where(Job.state == JobState.EXECUTING))
    ]
    return is_drained and len(progress) == 5 and all(progress)


def _entries() -> Iterator[Periodic]:
    yield Periodic(
        "reports: sales", "0 3 * * *", BuildReport.new({"kind": "sales"}), timezone="Europe/Berlin"
    )
    yield Periodic("reports: weekly", "0 6 * * mon", BuildReport.new({"kind": "weekly"}))
    yield Periodic("search: refresh", "*/15 * * * *", RefreshSearch.new({"index": "products"}))
    yield Periodic("stock: nightly import", "30 1 * * *", ImportStock.new({"path": "stock.csv"}))


async def _fill(engine: AsyncEngine, history: int) -> None:
    # The same numbers each time; only the times differ.
    rng, now = random.Random(21), datetime.now(UTC)
    async with AsyncSession(engine) as session:
        jobs = [_ended(rng, number, now) for number in range(history)]
        # Before the insertion, after which the session would load what it has not set.
        attempts = [list(_attempts(job)) for job in jobs]
        session.add_all(jobs)
        await session.flush()
        for job, of_job in zip(jobs, attempts, strict=True):
            for attempt in of_job:
                attempt.job_id = _id(job)
            session.add_all(of_job)
        session.add_all(_waiting(rng, now))
        await session.commit()
        past = update(Job).where(Job.scheduled_at < now).values(inserted_at=Job.scheduled_at)
        await session.execute(past, execution_options={"synchronize_session": False})
        await session.commit()


def _id(job: Job) -> int:
    """The id, without asking the database for the rest of the row."""
    identity = inspect(job).identity
    assert identity is not None
    return int(identity[0])


def _customer(rng: random.Random) -> list[str]:
    return [f"customer:{rng.randint(4_000, 4_060)}", f"country:{rng.choice(_COUNTRIES)}"]


def _ended(rng: random.Random, number: int, now: datetime) -> Job:
    """A job that ended during the last 20 hours, more of them in the last ones."""
    at = now - timedelta(hours=20) * rng.random() ** 1.5 - timedelta(minutes=2)
    order = 80_000 + number
    kind = rng.choices(("mail", "search", "report", "declined", "cancelled", "retried"), (70, 8, 6, 8, 3, 5))[
        0
    ]
    args: dict[str, Any] = {"order": order, "total": round(rng.uniform(5, 400), 2)}
    common: dict[str, Any] = {"scheduled_at": at, "priority": rng.choice((0, 0, 0, 1, 3))}
    if kind == "search":
        job = Job(
            worker="shop.RefreshSearch", args={"index": "products"}, tags=["search"], unique=False, **common
        )
    elif kind == "report":
        job = Job(
            worker="shop.BuildReport", queue="reports", args={"kind": "sales"}, tags=["report"], **common
        )
    elif kind in ("declined", "retried"):
        job = Job(
            worker="shop.ChargeCard",
            queue="payments",
            args={**args, "card": "4111 1111 1111 1111"},
            tags=["payment", *_customer(rng)],
            max_attempts=3 if kind == "declined" else 5,
            **common,
        )
    else:
        job = Job(
            worker="shop.ConfirmOrder", queue="mail", args=args, tags=["mail", *_customer(rng)], **common
        )
    seconds = rng.lognormvariate(0, 1) * (60 if kind == "report" else 0.4)
    started, ended = at + timedelta(seconds=rng.random()), at + timedelta(seconds=1 + seconds)
    job.attempt, job.attempted_at, job.attempted_by = 1, started, [rng.choice(NODES), "a-producer-of-today"]
    if kind == "declined":
        job.state, job.discarded_at, job.attempt = JobState.DISCARDED, ended, 3
    elif kind == "retried":
        job.state, job.completed_at, job.attempt = JobState.COMPLETED, ended, rng.choice((2, 3))
    elif kind == "cancelled":
        job.state, job.cancelled_at = JobState.CANCELLED, ended
    else:
        job.state, job.completed_at = JobState.COMPLETED, ended
    failures = {"declined": 3, "retried": job.attempt - 1}.get(kind, 0)
    job.errors = [
        {
            "attempt": attempt,
            "at": (started - timedelta(minutes=failures - attempt)).isoformat(),
            "error": _TRACEBACK % (order, rng.choice(_REASONS)),
        }
        for attempt in range(1, failures + 1)
    ]
    return job


def _attempts(job: Job) -> Iterator[Attempt]:
    """The attempts that a job has had, of which the last ended with it."""
    end = job.completed_at or job.cancelled_at or job.discarded_at
    assert end is not None
    assert job.attempted_at is not None
    for number in range(1, job.attempt + 1):
        earlier = timedelta(minutes=job.attempt - number)
        error = job.errors[number - 1]["error"] if number <= len(job.errors) else None
        last = {"completed": "completed", "cancelled": "cancelled", "discarded": "discarded"}[job.state]
        yield Attempt(
            attempt=number,
            outcome=last if number == job.attempt else "failed",
            node=job.attempted_by[0],
            producer=job.attempted_by[1],
            started_at=job.attempted_at - earlier,
            ended_at=end - earlier,
            error=error,
            log=[{"at": (end - earlier).isoformat(), "level": "WARNING", "text": "the bank is slow"}]
            if error
            else None,
        )


def _waiting(rng: random.Random, now: datetime) -> Iterator[Job]:
    """What still waits: a queue that is behind, one that is paused, one that no node runs, and the rest."""
    ago, ahead = timedelta(hours=-1), timedelta(hours=1)
    for number in range(4):
        yield ResizeImages.new({"album": 300 + number, "images": 120, "done": 30 * number + 8})
    for number in range(180):
        yield _due(
            ImportStock.new({"path": f"stock-{number}.csv"}, tags=_customer(rng)),
            now + 2 * ago * rng.random(),
        )
    for number in range(240):
        args = {"letter": "november", "reader": number}
        yield _due(SendNewsletter.new(args, tags=_customer(rng)), now + 5 * ago)
    for number in range(60):
        yield _due(ArchiveOrder.new({"order": 79_000 + number}), now + 9 * ago)
    for number in range(30):
        yield ConfirmOrder.new({"order": 90_000 + number}, tags=_customer(rng))
    for number in range(12):
        args = {"order": 91_000 + number, "card": "4111 1111 1111 1111"}
        yield ChargeCard.new(args, tags=_customer(rng))
    for number in range(80):
        args = {"order": 92_000 + number}
        yield ConfirmOrder.new(args, scheduled_at=now + ahead * rng.uniform(1, 30), tags=_customer(rng))
    for name in ("products", "orders", "customers"):
        yield RefreshSearch.new({"index": name}, schedule_in=1_800)
    for number in range(6):
        job = BuildReport.new({"kind": "yearly", "year": 2020 + number})
        job.state = JobState.SUSPENDED
        yield job


def _due(job: Job, at: datetime) -> Job:
    job.scheduled_at = at
    return job
