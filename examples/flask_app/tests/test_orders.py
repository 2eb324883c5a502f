"""Requests, the jobs that they enqueue, and what these jobs do."""

from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from flask_app.models import Order, Product
from flask_app.workers import AskForReview, OrderArgs, SendConfirmation
from oban import Cancel, SyncOban
from oban.clock import MovableClock
from oban.testing import assert_enqueued, drain_queue, process_job, refute_enqueued

ORDER = {"product": "tea", "quantity": 2, "email": "ann@example.com"}


@pytest.fixture(autouse=True)
def tea(sync_oban_session: Session) -> Product:
    """Three packets are in stock."""
    tea = Product(name="tea", stock=3)
    sync_oban_session.add(tea)
    sync_oban_session.commit()
    return tea


def place(client: FlaskClient) -> Any:
    answer = client.post("/orders", json=ORDER)
    assert answer.status_code == 201, answer.text
    return answer.get_json()


def test_an_order_enqueues_its_confirmation_and_a_question_for_next_week(
    client: FlaskClient, sync_oban: SyncOban, sync_oban_session: Session, tea: Product
) -> None:
    args = {"order_id": place(client)["id"]}
    assert_enqueued(oban=sync_oban, worker=SendConfirmation, args=args, state="available")
    assert_enqueued(oban=sync_oban, worker=AskForReview, args=args, scheduled_in=timedelta(days=7))
    sync_oban_session.refresh(tea)
    assert tea.stock == 1


def test_an_order_that_is_sold_out_leaves_neither_a_row_nor_a_job(
    client: FlaskClient, sync_oban: SyncOban, sync_oban_session: Session
) -> None:
    assert client.post("/orders", json={**ORDER, "quantity": 4}).status_code == 409
    refute_enqueued(oban=sync_oban, queue="mailers")
    assert sync_oban_session.scalars(select(Order)).all() == []


def test_a_customer_is_asked_a_week_after_the_confirmation(
    client: FlaskClient, sync_oban: SyncOban, oban_clock: MovableClock
) -> None:
    order = place(client)
    assert drain_queue("mailers", oban=sync_oban, with_scheduled=False)["completed"] == 1
    confirmed = client.get(f"/orders/{order['id']}").get_json()
    assert confirmed == {**order, "confirmed": True, "asked_for_review": False}

    oban_clock.advance(days=7)
    assert drain_queue("mailers", oban=sync_oban, with_scheduled=False)["completed"] == 1
    asked = client.get(f"/orders/{order['id']}").get_json()
    assert asked == {**confirmed, "asked_for_review": True}


def test_the_jobs_of_a_deleted_order_are_cancelled(sync_oban: SyncOban) -> None:
    for worker in (SendConfirmation, AskForReview):
        result = process_job(worker.new(OrderArgs(404)), oban=sync_oban)
        assert result == Cancel("the order no longer exists")


def test_a_job_is_changed_and_cancelled_over_http(client: FlaskClient, sync_oban: SyncOban) -> None:
    place(client)
    job = assert_enqueued(oban=sync_oban, worker=AskForReview)
    changed = client.patch(f"/jobs/{job.id}", json={"schedule_in": 3600, "priority": 3})
    assert changed.status_code == 200, changed.text
    assert_enqueued(oban=sync_oban, worker=AskForReview, scheduled_in=timedelta(hours=1), priority=3)

    assert client.post(f"/jobs/{job.id}/cancel").get_json()["state"] == "cancelled"
    refute_enqueued(oban=sync_oban, worker=AskForReview)
    assert client.post(f"/jobs/{job.id}/cancel").status_code == 409
