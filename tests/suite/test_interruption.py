"""A task that is cancelled while it waits for the database leaves nothing behind."""

import asyncio

import pytest
from sqlalchemy import URL

from oban import Job, Oban
from tests.support.waiting import within


@pytest.mark.slow
async def test_a_cancelled_call_keeps_no_lock_and_enqueues_all_or_nothing(url: URL) -> None:
    async with Oban(url) as oban:
        await oban.enqueue(Job(worker="warm"))
        kept: list[BaseException] = []
        for steps in range(1, 100, 5):
            before = len(await oban.list_jobs())
            batch = [Job(worker="w") for _ in range(200)]
            task = asyncio.create_task(oban.enqueue_many(batch))
            # Cancel the call wherever it is after this many turns of the loop.
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError as error:
                # As a caller would that logs it: the traceback keeps its objects alive.
                kept.append(error)
            await within(oban.enqueue(Job(worker="next")), 5)
            assert len(await oban.list_jobs()) - before - 1 in (0, 200)
        assert kept
