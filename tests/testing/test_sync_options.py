"""In the transaction of a test, a `SyncOban` has the options of the node whose jobs the test runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from oban import CallNext, Job, Periodic, Worker
from tests.testing.applications import Application, with_clients

calls: list[str] = []


class Mailer:
    """A resource."""


@pytest.fixture
def mail(own_registry: None) -> type[Worker]:
    """A worker that needs the resource, which nodes of other tests do not have."""
    calls.clear()

    class Mail(Worker, name="tests.Mail"):
        def process(self, job: Job, mailer: Mailer) -> None:
            calls.append(type(mailer).__name__)

    return Mail


def middleware(job: Job, call_next: CallNext) -> Any:
    calls.append("middleware")
    return call_next(job)


@asynccontextmanager
async def lifespan(client: object) -> AsyncIterator[Mailer]:
    yield Mailer()


@with_clients(middleware=[middleware], lifespan=lifespan)
async def test_jobs_run_within_the_middleware_and_get_the_resources(
    app: Application, mail: type[Worker]
) -> None:
    await app.oban.enqueue(mail.new())
    assert (await app.testing.drain_queue())["completed"] == 1
    await app.testing.process_job(mail.new())
    assert calls == ["middleware", "Mailer"] * 2


@with_clients(periodic=[Periodic("ping", "* * * * *", Job(worker="tests.Ping"))])
async def test_periodic_entries_of_the_client_are_inserted(app: Application, own_registry: None) -> None:
    (job,) = await app.testing.insert_periodic_jobs()
    assert job.worker == "tests.Ping"
