"""Tests that fail, each in another way; they only run when this file is named."""

import pytest
from shop import Confirm, remind
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from oban import Oban, testing

pytestmark = pytest.mark.asyncio


async def test_with_a_wrong_expectation(oban: Oban) -> None:
    await Confirm.enqueue({"order": 1})
    assert len(await oban.list_jobs()) == 2


async def test_with_a_job_that_fails(oban: Oban) -> None:
    await remind.enqueue(-1)
    await testing.drain_queue("mailers", with_safety=False)


async def test_with_an_aborted_transaction(oban_connection: AsyncConnection) -> None:
    await oban_connection.execute(text("SELECT * FROM nowhere"))


@pytest.mark.oban(mode="inlin")
async def test_with_a_mode_that_does_not_exist(oban: Oban) -> None:
    pass


@pytest.mark.oban(safety=False)
async def test_with_an_argument_that_does_not_exist(oban: Oban) -> None:
    pass
