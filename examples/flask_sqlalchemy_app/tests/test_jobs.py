"""What the workers do: alone, and one after the other as on a node."""

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from flask_sqlalchemy_app.jobs import Calculate, InvoiceArgs, Send
from flask_sqlalchemy_app.models import Invoice, Rate
from oban import Cancel, SyncOban
from oban.testing import all_enqueued, assert_enqueued, drain_queue, process_job, refute_enqueued

ORDER = {"email": "ann@example.com", "country": "DE", "net": 10_000}


@pytest.fixture
def invoice(client: FlaskClient, sync_oban_session: Session) -> Invoice:
    """An invoice that was ordered over HTTP."""
    ordered = client.post("/invoices", json=ORDER).get_json()
    return sync_oban_session.get_one(Invoice, ordered["id"])


def test_the_tax_is_that_of_the_country(
    sync_oban: SyncOban, sync_oban_session: Session, invoice: Invoice
) -> None:
    sync_oban_session.add(Rate(country="DE", percent=19))
    sync_oban_session.commit()
    assert process_job(Calculate.new(InvoiceArgs(invoice.id)), oban=sync_oban) is None
    sync_oban_session.refresh(invoice)
    assert invoice.gross == 11_900
    assert_enqueued(oban=sync_oban, worker=Send, args={"invoice_id": invoice.id})


def test_a_country_without_a_rate_is_an_error(
    sync_oban: SyncOban, sync_oban_session: Session, invoice: Invoice
) -> None:
    with pytest.raises(LookupError, match="there is no tax rate for DE"):
        process_job(Calculate.new(InvoiceArgs(invoice.id)), oban=sync_oban)
    sync_oban_session.refresh(invoice)
    assert invoice.gross is None
    refute_enqueued(oban=sync_oban, worker=Send)


@pytest.mark.usefixtures("app")
def test_the_jobs_of_a_deleted_invoice_are_cancelled(sync_oban: SyncOban) -> None:
    for worker in (Calculate, Send):
        result = process_job(worker.new(InvoiceArgs(404)), oban=sync_oban)
        assert result == Cancel("the invoice no longer exists")


def test_an_invoice_is_calculated_and_then_sent(
    client: FlaskClient, sync_oban: SyncOban, invoice: Invoice
) -> None:
    client.put("/rates/DE", json={"percent": 19})
    assert drain_queue("invoices", oban=sync_oban)["completed"] == 2
    shown = client.get(f"/invoices/{invoice.id}").get_json()
    assert (shown["gross"], shown["sent"]) == (11_900, True)
    sent, calculated = all_enqueued(oban=sync_oban, state="completed")
    assert (calculated.worker, sent.worker) == (Calculate.worker_name, Send.worker_name)


def test_a_failed_job_runs_again_when_the_rate_is_there(
    client: FlaskClient, sync_oban: SyncOban, invoice: Invoice
) -> None:
    with pytest.raises(LookupError):
        drain_queue("invoices", oban=sync_oban)
    (failed,) = client.get("/jobs?state=retryable").get_json()
    assert "there is no tax rate for DE" in failed["errors"][0]["error"]
    client.put("/rates/DE", json={"percent": 19})
    assert client.post(f"/jobs/{failed['id']}/retry").get_json()["state"] == "available"
    assert drain_queue("invoices", oban=sync_oban)["completed"] == 2
    assert client.get(f"/invoices/{invoice.id}").get_json()["sent"]
