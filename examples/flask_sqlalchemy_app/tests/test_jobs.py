"""The workers: called directly, and by a node that runs in the test."""

import asyncio

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_sqlalchemy_app.database import db
from flask_sqlalchemy_app.jobs import Calculate, InvoiceArgs, Send, create_oban
from flask_sqlalchemy_app.models import Invoice, Rate
from oban import Cancel

ORDER = {"email": "ann@example.com", "country": "DE", "net": 10_000}


@pytest.fixture
def invoice(client: FlaskClient) -> InvoiceArgs:
    return InvoiceArgs(client.post("/invoices", json=ORDER).get_json()["id"])


def test_the_tax_is_that_of_the_country(app: Flask, invoice: InvoiceArgs) -> None:
    with app.app_context():
        db.session.add(Rate(country="DE", percent=19))
        assert Calculate().process(Calculate.new(invoice), invoice) is None
        assert db.session.get_one(Invoice, invoice.invoice_id).gross == 11_900


def test_a_country_without_a_rate_is_an_error(app: Flask, invoice: InvoiceArgs) -> None:
    with app.app_context(), pytest.raises(LookupError, match="there is no tax rate for DE"):
        Calculate().process(Calculate.new(invoice), invoice)


def test_the_job_of_a_deleted_invoice_is_cancelled(app: Flask) -> None:
    gone = InvoiceArgs(1_000_000)
    with app.app_context():
        assert isinstance(Calculate().process(Calculate.new(gone), gone), Cancel)


def test_a_node_calculates_and_sends_an_invoice(
    app: Flask, client: FlaskClient, invoice: InvoiceArgs
) -> None:
    client.put("/rates/DE", json={"percent": 19})

    async def run_all_jobs() -> None:
        async with create_oban(app) as oban:
            await oban.wait_until_empty("invoices", timeout=30)

    asyncio.run(run_all_jobs())
    shown = client.get(f"/invoices/{invoice.invoice_id}").get_json()
    assert (shown["gross"], shown["sent"]) == (11_900, True)
    jobs = client.get(f"/invoices/{invoice.invoice_id}/jobs").get_json()
    assert [(job["worker"], job["state"]) for job in jobs] == [
        (Calculate.worker_name, "completed"),
        (Send.worker_name, "completed"),
    ]
