"""What `drain_queue` logs."""

import pytest

from oban import Job, Oban, Worker
from oban.testing import drain_queue


async def test_a_drain_of_a_queue_that_no_worker_has_says_so(
    oban: Oban, caplog: pytest.LogCaptureFixture
) -> None:
    class Mail(Worker, name="tests.Mail", queue="newsletters"):
        async def process(self, job: Job) -> None:
            pass

    await oban.enqueue(Mail.new())
    await drain_queue("newsleters", oban=oban)
    assert "no worker has the queue 'newsleters'; did you mean newsletters?" in caplog.text
    caplog.clear()
    for _ in range(2):
        await drain_queue("newsletters", oban=oban)
    assert caplog.text == ""
