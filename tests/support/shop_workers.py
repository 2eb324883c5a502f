"""The workers of `tests/support/shop.py`, a shop whose jobs a dashboard shows."""

import asyncio
from typing import Any

from oban import Cancel, Job, Record, Worker

#: Seconds between two looks of a long job at whether it was cancelled.
_LOOK = 0.05


async def _cancelled(job: Job) -> None:
    while not job.cancelled():  # noqa: ASYNC110
        # A job is asked, and tells nobody.
        await asyncio.sleep(_LOOK)


class PaymentDeclined(Exception):
    """The bank refuses a card."""


class ConfirmOrder(Worker, queue="mail", name="shop.ConfirmOrder", tags=["mail"]):
    """Succeeds at once."""

    async def process(self, job: Job) -> Record:
        job.log.info("sent the confirmation of order %s", job.args.get("order"))
        return Record({"message": f"order-{job.args.get('order')}@shop.example", "size": 18_204})


class ChargeCard(
    Worker, queue="payments", name="shop.ChargeCard", max_attempts=5, redact=["card"], tags=["payment"]
):
    """Fails for each card: the bank is down."""

    async def process(self, job: Job) -> None:
        job.log.warning("the bank has not answered for order %s", job.args.get("order"))
        self.charge(job.args)

    def charge(self, order: Any) -> None:
        raise PaymentDeclined(f"the bank refuses order {order.get('order')}: insufficient funds")

    def backoff(self, job: Job) -> float:
        return 3600.0 * job.attempt


class ResizeImages(Worker, queue="media", name="shop.ResizeImages", tags=["images"]):
    """Reports its progress, and runs until it is cancelled."""

    async def process(self, job: Job) -> Cancel:
        done, total = job.args.get("done", 0), job.args.get("images", 100)
        job.progress(done, total, f"resizing image {done} of {total}")
        job.log.info("found %s images", total)
        await _cancelled(job)
        return Cancel("stopped between two images")


class ImportStock(Worker, queue="imports", name="shop.ImportStock", tags=["stock"]):
    """Runs until it is cancelled, so that the jobs behind it wait."""

    async def process(self, job: Job) -> Cancel:
        job.progress(7_310, 48_000, "reading stock.csv")
        await _cancelled(job)
        return Cancel("stopped between two rows")


class SendNewsletter(Worker, queue="newsletter", name="shop.SendNewsletter", tags=["newsletter"]):
    """Waits in a queue that is paused."""

    async def process(self, job: Job) -> None:
        job.log.info("sent")


class BuildReport(Worker, queue="reports", name="shop.BuildReport", tags=["report"]):
    """Runs from a schedule."""

    async def process(self, job: Job) -> Record:
        return Record({"rows": 1_204, "kind": job.args.get("kind")})


class RefreshSearch(
    Worker, queue="default", name="shop.RefreshSearch", unique={"period": 86_400}, tags=["search"]
):
    """Is unique for a day."""

    async def process(self, job: Job) -> None:
        job.log.info("refreshed %s", job.args.get("index"))


class ArchiveOrder(Worker, queue="archive", name="shop.ArchiveOrder", tags=["archive"]):
    """Waits in a queue that no node runs."""

    async def process(self, job: Job) -> None:
        job.log.info("archived")
