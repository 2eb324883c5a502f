"""`drain_queue(with_scheduled=False)` runs what a node would run at this time: also what has become due."""

from datetime import timedelta

import pytest

from oban import Job, Oban, Worker, testing
from tests.testing.applications import Application, with_clients


class Fails(Worker, name="tests.Fails", max_attempts=2):
    async def process(self, job: Job) -> None:
        raise ValueError("no luck")

    def backoff(self, job: Job) -> float:
        return 60


@with_clients
async def test_scheduled_jobs_and_retries_run_once_they_are_due(app: Application) -> None:
    with testing.travel() as moving:
        await app.oban.enqueue(Fails.new(schedule_in=timedelta(days=1)))

        async def ended() -> list[str]:
            counts = await app.testing.drain_queue(with_scheduled=False, with_safety=True)
            return [state for state, count in counts.items() if count]

        seen = []
        for step in (0, 86_399, 1, 59, 1):
            moving.advance(step)
            seen.append(await ended())
    assert seen == [[], [], ["retryable"], [], ["discarded"]]


async def test_a_drain_of_a_queue_that_no_worker_has_says_so(
    oban: Oban, caplog: pytest.LogCaptureFixture
) -> None:
    class Mail(Worker, name="tests.Mail", queue="newsletters"):
        async def process(self, job: Job) -> None:
            pass

    await oban.enqueue(Mail.new())
    await testing.drain_queue("newsleters", oban=oban)
    assert "no worker has the queue 'newsleters'; did you mean newsletters?" in caplog.text
    caplog.clear()
    for _ in range(2):
        await testing.drain_queue("newsletters", oban=oban)
    assert caplog.text == ""
