"""What requests store, without running any job."""

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from flask_sqlalchemy_app.jobs import Calculate
from flask_sqlalchemy_app.models import Invoice
from oban import SyncOban
from oban.testing import assert_enqueued, refute_enqueued

ORDER = {"email": "ann@example.com", "country": "DE", "net": 10_000}


def test_an_invoice_is_stored_with_the_job_that_calculates_it(
    client: FlaskClient, sync_oban: SyncOban
) -> None:
    answer = client.post("/invoices", json=ORDER)
    assert answer.status_code == 201
    invoice = answer.get_json()
    assert invoice == {**ORDER, "id": invoice["id"], "gross": None, "sent": False}
    assert_enqueued(oban=sync_oban, worker=Calculate, queue="invoices", args={"invoice_id": invoice["id"]})


def test_a_request_that_fails_leaves_neither_an_invoice_nor_a_job(
    client: FlaskClient, sync_oban: SyncOban, sync_oban_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue = SyncOban.enqueue

    def fail_afterwards(*args: object, **options: object) -> None:
        enqueue(*args, **options)  # type: ignore[arg-type]
        raise OSError

    monkeypatch.setattr(SyncOban, "enqueue", fail_afterwards)
    assert client.post("/invoices", json=ORDER).status_code == 500
    refute_enqueued(oban=sync_oban)
    assert sync_oban_session.scalars(select(Invoice)).all() == []


@pytest.mark.parametrize("bad", [{"email": "nobody"}, {"country": "Germany"}, {"net": 0}])
def test_an_invoice_with_bad_values_is_refused(client: FlaskClient, bad: dict[str, object]) -> None:
    answer = client.post("/invoices", json={**ORDER, **bad})
    assert (answer.status_code, bool(answer.get_json()["detail"])) == (422, True)


def test_the_jobs_of_an_invoice_are_found_by_their_args(client: FlaskClient) -> None:
    invoice = client.post("/invoices", json=ORDER).get_json()
    client.post("/invoices", json=ORDER)
    (job,) = client.get(f"/invoices/{invoice['id']}/jobs").get_json()
    assert (job["worker"], job["state"], job["errors"]) == (Calculate.worker_name, "available", [])


def test_what_does_not_exist_is_not_found(client: FlaskClient) -> None:
    for path in ("/invoices/0", f"/invoices/{2**40}", f"/invoices/{2**40}/jobs"):
        assert client.get(path).status_code == 404
    assert client.post("/jobs/1000000/retry").status_code == 404
    assert client.get("/jobs?state=broken").status_code == 422
