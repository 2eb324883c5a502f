"""A service whose database is away: it goes on trying, and is soon back."""

import re

import pytest

from oban.runner.service import Service
from tests.waiting import eventually


class Failing(Service):
    async def tick(self) -> float | None:
        raise ConnectionError("no route")


@pytest.mark.parametrize("failures", [0, 6, 5_000])
async def test_however_often_it_has_failed_it_tries_again_within_3_seconds(
    caplog: pytest.LogCaptureFixture, failures: int
) -> None:
    service = Failing("failing", interval=60.0)
    service.failures = failures
    await service.start()
    await eventually(lambda: "trying again in" in caplog.text)
    await service.stop()
    [pause] = re.findall(
        r"failing failed, trying again in ([\d.]+) s: ConnectionError: no route", caplog.text
    )
    assert float(pause) <= 3.0
