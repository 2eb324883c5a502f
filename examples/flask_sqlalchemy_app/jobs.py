"""The jobs of an invoice, and the `Oban` that runs them.

oban start flask_sqlalchemy_app.jobs:create_oban
"""

import logging
from dataclasses import dataclass
from typing import Any

from flask import Flask
from sqlalchemy.orm import Session

from oban import CallNext, Cancel, Job, Middleware, Oban, Worker

from .billing import calculate_gross
from .database import db
from .models import Invoice

logger = logging.getLogger(__name__)


def in_app_context(app: Flask) -> Middleware:
    """Middleware that runs each attempt in an application context, and so with a `db.session` of its own.

    At the end of the context, Flask-SQLAlchemy rolls back what was not committed, and returns the connection.
    """

    def middleware(job: Job, call_next: CallNext) -> Any:
        with app.app_context():
            return call_next(job)

    return middleware


def create_oban(app: Flask | None = None) -> Oban:
    """Create what `oban start` runs, on the database of the application."""
    if app is None:
        from .app import create_app

        # `oban start` prints what Oban logs. This is for the application's own loggers.
        logging.basicConfig(level=logging.INFO)
        app = create_app()
    with app.app_context():
        url = db.engine.url
    return Oban(url, queues={"invoices": 5}, middleware=[in_app_context(app)])


@dataclass(frozen=True)
class InvoiceArgs:
    invoice_id: int


class Calculate(Worker[InvoiceArgs], queue="invoices", max_attempts=5):
    """Uses `db.session`, as the code that it calls does.

    The commit comes before the job's completion. If the process is killed in between, the job runs again.
    """

    def process(self, job: Job, args: InvoiceArgs) -> Cancel | None:
        invoice = db.session.get(Invoice, args.invoice_id)
        if invoice is None:
            return Cancel("the invoice no longer exists")
        if invoice.gross is None:
            invoice.gross = calculate_gross(invoice)
            db.session.add(Send.new(args))
            db.session.commit()
        return None


class Send(Worker[InvoiceArgs], queue="invoices", max_attempts=5):
    """Takes a session from Oban: what it writes is committed together with the job's completion."""

    def process(self, job: Job, args: InvoiceArgs, session: Session) -> Cancel | None:
        invoice = session.get(Invoice, args.invoice_id)
        if invoice is None:
            return Cancel("the invoice no longer exists")
        logger.info("to %s: invoice %s over %s cents", invoice.email, invoice.id, invoice.gross)
        invoice.sent = True
        return None
