"""A service starts with a tick, keeps trying while its database is away, and works soon after it is back."""

import asyncio
import re

import pytest
from sqlalchemy.exc import DBAPIError

from oban import dialects
from oban.runner.services.base import Service
from tests.support.waiting import eventually


class StartingUp(Exception):
    """An error of a driver that SQLAlchemy may raise unchanged when it connects."""

    sqlstate = "57P03"


class Failing(Service):
    def __init__(self, error: Exception) -> None:
        super().__init__("failing", 60.0)
        self.error = error

    async def tick(self) -> float | None:
        raise self.error


@pytest.mark.parametrize("failures", [0, 6, 5_000])
async def test_a_service_tries_again_within_3_seconds_however_often_it_has_failed(
    caplog: pytest.LogCaptureFixture, failures: int
) -> None:
    service = Failing(ConnectionError("no route"))
    service.failures = failures
    await service.start()
    await eventually(lambda: "trying again in" in caplog.text)
    await service.stop()
    [pause] = re.findall(
        r"failing failed, trying again in ([\d.]+) s: ConnectionError: no route", caplog.text
    )
    assert float(pause) <= 3.0


@pytest.mark.parametrize(
    ("error", "traced"),
    [
        (ConnectionRefusedError("no server"), False),
        (StartingUp("not yet accepting"), False),
        (DBAPIError("SELECT 1", {}, StartingUp("not yet accepting")), False),
        (RuntimeError("nobody knows"), True),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_only_unexpected_errors_are_logged_with_a_traceback(
    caplog: pytest.LogCaptureFixture, error: Exception, traced: bool
) -> None:
    service = Failing(error)
    await service.start()
    await eventually(lambda: "trying again in" in caplog.text)
    await service.stop()
    assert str(dialects.driver_error(error)) in caplog.text
    assert ("Traceback" in caplog.text) is traced


class Working(Service):
    """Its tick ends when the test says so."""

    def __init__(self) -> None:
        super().__init__("working", 60.0)
        self.ends = asyncio.Event()
        self.has_ticked = False

    async def tick(self) -> float | None:
        await self.ends.wait()
        await asyncio.sleep(0)
        self.has_ticked = True
        return None


async def test_a_start_waits_for_the_first_tick_so_that_the_next_service_can_use_its_connection() -> None:
    service = Working()
    service.ends.set()
    await service.start()
    assert service.has_ticked
    await service.stop()


async def test_a_start_does_not_wait_for_a_first_tick_that_takes_long() -> None:
    service = Working()
    await service.start()
    assert not service.has_ticked
    service.ends.set()
    await service.stop()


class Interrupted(Service):
    """Its tick replaces a cancellation by `error`, or drops it."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__("interrupted", 60.0)
        self.error = error

    async def tick(self) -> float | None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.error is not None:
                raise self.error from None
        return None


@pytest.mark.parametrize(
    "error", [ConnectionError("the connection was closed"), None], ids=["replaced", "dropped"]
)
async def test_a_cancelled_service_ends_although_its_driver_hides_the_cancellation(
    error: Exception | None,
) -> None:
    await Interrupted(error).start()
    [task] = [task for task in asyncio.all_tasks() if task.get_name() == "oban-interrupted"]
    task.cancel()
    await asyncio.wait_for(task, 10)
