"""Requests, the jobs that they enqueue, and what these jobs do."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_app.models import Order, Product
from fastapi_app.workers import AskForReview, OrderArgs, SendConfirmation
from oban import Cancel
from oban.clock import MovableClock
from oban.testing import assert_enqueued, drain_queue, process_job, refute_enqueued

ORDER = {"product": "tea", "quantity": 2, "email": "ann@example.com"}


@pytest.fixture(autouse=True)
async def tea(oban_session: AsyncSession) -> Product:
    """Three packets are in stock."""
    tea = Product(name="tea", stock=3)
    oban_session.add(tea)
    await oban_session.commit()
    return tea


async def place(client: httpx.AsyncClient) -> Any:
    answer = await client.post("/orders", json=ORDER)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_an_order_enqueues_its_confirmation_and_a_question_for_next_week(
    client: httpx.AsyncClient, oban_session: AsyncSession, tea: Product
) -> None:
    order = await place(client)
    await assert_enqueued(worker=SendConfirmation, args={"order_id": order["id"]}, state="available")
    await assert_enqueued(worker=AskForReview, args={"order_id": order["id"]}, scheduled_in=timedelta(days=7))
    await oban_session.refresh(tea)
    assert tea.stock == 1


async def test_an_order_that_is_sold_out_leaves_neither_a_row_nor_a_job(
    client: httpx.AsyncClient, oban_session: AsyncSession
) -> None:
    assert (await client.post("/orders", json={**ORDER, "quantity": 4})).status_code == 409
    await refute_enqueued(queue="mailers")
    assert (await oban_session.scalars(select(Order))).all() == []


async def test_a_customer_is_asked_a_week_after_the_confirmation(
    client: httpx.AsyncClient, oban_clock: MovableClock
) -> None:
    order = await place(client)
    assert (await drain_queue("mailers", with_scheduled=False))["completed"] == 1
    confirmed = (await client.get(f"/orders/{order['id']}")).json()
    assert confirmed == {**order, "confirmed": True, "asked_for_review": False}

    oban_clock.advance(days=7)
    assert (await drain_queue("mailers", with_scheduled=False))["completed"] == 1
    asked = (await client.get(f"/orders/{order['id']}")).json()
    assert asked == {**confirmed, "asked_for_review": True}


@pytest.mark.usefixtures("oban")
async def test_the_jobs_of_a_deleted_order_are_cancelled() -> None:
    for worker in (SendConfirmation, AskForReview):
        assert await process_job(worker.new(OrderArgs(404))) == Cancel("the order no longer exists")


async def test_a_job_is_changed_and_cancelled_over_http(client: httpx.AsyncClient) -> None:
    await place(client)
    job = await assert_enqueued(worker=AskForReview)
    changed = await client.patch(f"/jobs/{job.id}", json={"schedule_in": 3600, "priority": 3})
    assert changed.status_code == 200, changed.text
    await assert_enqueued(worker=AskForReview, scheduled_in=timedelta(hours=1), priority=3)

    assert (await client.post(f"/jobs/{job.id}/cancel")).json()["state"] == "cancelled"
    await refute_enqueued(worker=AskForReview)
    assert (await client.post(f"/jobs/{job.id}/cancel")).status_code == 409
