"""Both web applications give the same responses to the same requests and leave the same rows."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from tests.examples.applications import Application
from tests.examples.processes import until

ORDERS = 20


def test_an_order_is_confirmed_by_a_job_that_was_enqueued_with_it(application: Application) -> None:
    application.stock("tea", 3)
    order = application.order("tea", 2)
    assert order == {
        "id": order["id"],
        "product": "tea",
        "quantity": 2,
        "email": "ann@example.com",
        "confirmed": False,
        "asked_for_review": False,
    }
    sent = application.job_in(order, "SendConfirmation", "completed")
    assert (sent["attempt"], sent["priority"]) == (1, 0)
    # Written in the transaction that completed the job.
    assert application.call("GET", f"/orders/{order['id']}") == {**order, "confirmed": True}
    review = application.job_in(order, "AskForReview", "scheduled")
    due = datetime.fromisoformat(review["scheduled_at"]) - datetime.now(UTC)
    assert timedelta(days=6, hours=23) < due <= timedelta(days=7)
    assert application.rows("SELECT stock FROM products WHERE name = 'tea'") == [(1,)]


def test_a_request_that_fails_leaves_neither_an_order_nor_a_job(application: Application) -> None:
    application.stock("rare", 1)
    before = application.rows("SELECT id FROM oban_jobs ORDER BY id")
    assert application.order("rare", 2, status=409) == {"detail": "rare is sold out"}
    assert application.rows("SELECT id FROM orders WHERE product = 'rare'") == []
    assert application.rows("SELECT id FROM oban_jobs ORDER BY id") == before
    assert application.rows("SELECT stock FROM products WHERE name = 'rare'") == [(1,)]
    # The session of the next request still works.
    assert len(application.jobs(application.order("rare"))) == 2


def test_a_job_is_cancelled_and_retried_and_runs_then(application: Application) -> None:
    application.stock("cup", 1)
    order = application.order("cup")
    path = f"/jobs/{application.job_in(order, 'AskForReview', 'scheduled')['id']}"
    assert application.call("POST", f"{path}/cancel")["state"] == "cancelled"
    assert application.job_in(order, "AskForReview", "cancelled")["attempt"] == 0
    assert application.call("POST", f"{path}/cancel", status=409) == {"detail": "the job has ended"}
    assert application.call("PATCH", path, {"priority": 1}, status=409) == {"detail": "the job is cancelled"}

    assert application.call("POST", f"{path}/retry")["state"] == "available"
    assert application.job_in(order, "AskForReview", "completed")["attempt"] == 1
    assert application.call("GET", f"/orders/{order['id']}")["asked_for_review"] is True


def test_a_job_of_next_week_is_changed_to_run_now(application: Application) -> None:
    application.stock("mug", 1)
    order = application.order("mug")
    path = f"/jobs/{application.job_in(order, 'AskForReview', 'scheduled')['id']}"
    changed = application.call("PATCH", path, {"priority": 3, "schedule_in": 3600})
    assert (changed["priority"], changed["state"]) == (3, "scheduled")
    due = datetime.fromisoformat(changed["scheduled_at"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < due <= timedelta(hours=1)

    assert application.call("PATCH", path, {"schedule_in": 0})["state"] == "available"
    assert application.job_in(order, "AskForReview", "completed")["priority"] == 3
    assert application.call("GET", f"/orders/{order['id']}")["asked_for_review"] is True


BAD_ORDERS: list[Any] = [
    {},
    [],
    None,
    {"product": "pot", "quantity": 0, "email": "ann@example.com"},
    {"product": "pot", "quantity": "many", "email": "ann@example.com"},
    {"product": "pot", "quantity": 2**70, "email": "ann@example.com"},
    {"product": "pot", "quantity": 1, "email": "nobody"},
    {"product": "pot", "quantity": 1, "email": "a\x00@b.c"},
    {"product": "\x00", "quantity": 1, "email": "ann@example.com"},
    {"product": "pot", "quantity": float("nan"), "email": "ann@example.com"},
    {"product": "\ud800", "quantity": 1, "email": "ann@example.com"},
]
BAD_CHANGES: list[Any] = [
    [],
    {"priority": 10},
    {"priority": None},
    {"schedule_in": 1e300},
    {"schedule_in": float("inf")},
    {"schedule_in": float("nan")},
    {"worker": "somebody.Elses"},
    {"priority": 1, "state": "completed"},
    {"priority": 1, "\ud800": 1},
]


def test_bad_input_is_refused_and_changes_nothing(application: Application) -> None:
    application.stock("pot", 1)
    order = application.order("pot")
    application.job_in(order, "SendConfirmation", "completed")
    before = application.rows("SELECT * FROM oban_jobs ORDER BY id")
    path = f"/jobs/{application.job_in(order, 'AskForReview', 'scheduled')['id']}"
    refusals = [("POST", "/orders", bad) for bad in BAD_ORDERS]
    refusals += [("PATCH", path, bad) for bad in BAD_CHANGES]
    refusals += [("PUT", "/products/pot", {"stock": -1}), ("PUT", "/products/p%00t", {"stock": 1})]
    for method, where, bad in refusals:
        # Encoded here, because the client would refuse some of these values itself.
        answer = application.client.request(
            method, where, content=json.dumps(bad), headers={"content-type": "application/json"}
        )
        assert (answer.status_code, bool(answer.json()["detail"])) == (422, True), (bad, answer.text)
    assert application.rows("SELECT * FROM oban_jobs ORDER BY id") == before
    assert application.rows("SELECT stock FROM products WHERE name = 'pot'") == [(0,)]


def test_a_body_that_is_not_json_is_a_bad_request(application: Application) -> None:
    for content in ("", "{", "\xff"):
        answer = application.client.post(
            "/orders", content=content.encode("latin-1"), headers={"content-type": "application/json"}
        )
        assert answer.status_code in (400, 422), answer.text
        assert answer.json()["detail"]


@pytest.mark.parametrize("id_", ["1000000", str(2**31), str(2**63), str(10**30), "0", "-1", "x"])
def test_an_unknown_id_is_not_found(application: Application, id_: str) -> None:
    expected = {404} if id_ == "1000000" else {404, 422}
    for method, path in (
        ("GET", f"/orders/{id_}"),
        ("GET", f"/orders/{id_}/jobs"),
        ("POST", f"/jobs/{id_}/cancel"),
        ("POST", f"/jobs/{id_}/retry"),
        ("PATCH", f"/jobs/{id_}"),
    ):
        answer = application.client.request(method, path, json={"priority": 1})
        assert answer.status_code in expected, (path, answer.text)
        assert answer.json()["detail"]
    assert application.order("nothing of the kind", status=404)["detail"]


@contextmanager
def running(application: Application) -> Iterator[None]:
    """While the block runs, an executing job waits for a lock on a row.

    This does nothing on SQLite, which locks the whole database, so that no job would be fetched.
    """
    if application.engine.dialect.name == "sqlite":
        yield
        return
    application.stock("pen", 1)
    order = application.order("pen")
    application.job_in(order, "SendConfirmation", "completed")
    review = application.job_in(order, "AskForReview", "scheduled")
    with application.engine.begin() as connection:
        connection.execute(text("SELECT id FROM orders WHERE id = :id FOR UPDATE"), {"id": order["id"]})
        application.call("POST", f"/jobs/{review['id']}/retry")
        application.job_in(order, "AskForReview", "executing")
        yield
        application.processes[-1].says("Waiting for application shutdown|waiting for running jobs")
        state = "SELECT state, attempt FROM oban_jobs WHERE id = :id"
        assert application.rows(state, id=review["id"]) == [("executing", 1)]
    assert application.stop() == [0] * len(application.processes)
    assert application.rows(state, id=review["id"]) == [("completed", 1)]


def test_stopped_in_the_middle_it_lets_jobs_end_and_goes_on_after_a_restart(application: Application) -> None:
    application.stock("ink", ORDERS)
    [(earlier,)] = application.rows("SELECT coalesce(max(id), 0) FROM oban_jobs")
    with running(application):
        for _ in range(ORDERS):
            application.order("ink")
        for process in application.processes:
            process.terminate()
    assert application.stop() == [0] * len(application.processes)
    assert application.rows("SELECT id FROM oban_jobs WHERE state = 'executing'") == []
    ours = """
        SELECT state, count(*) FROM oban_jobs
        WHERE id > :earlier AND worker LIKE '%.SendConfirmation' GROUP BY state
    """
    ended = dict(application.rows(ours, earlier=earlier))
    assert ended.keys() <= {"available", "completed"}
    confirmed = "SELECT count(*) FROM orders WHERE product IN ('ink', 'pen') AND confirmed"
    assert application.rows(confirmed) == [(ended.get("completed", 0),)]
    placed = sum(ended.values())

    application.start()
    until(lambda: application.rows(confirmed) == [(placed,)])
    assert placed >= ORDERS
