"""Clients order invoices over HTTP, and operators look after the jobs."""

from datetime import datetime
from typing import Annotated, Any

from flask import Blueprint, abort, current_app, jsonify, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select
from werkzeug.exceptions import HTTPException

from oban import Job, JobState, SyncOban, filters

from .database import db
from .jobs import Calculate, InvoiceArgs
from .models import Invoice, Rate

routes = Blueprint("invoices", __name__)


def oban() -> SyncOban:
    found: SyncOban = current_app.extensions["oban"]
    return found


# -- Requests and responses ------------------------------------------------------------------------

Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]


class NewRate(BaseModel):
    country: Country
    percent: int = Field(ge=0, le=100)


class NewInvoice(BaseModel):
    email: str = Field(pattern=r"^[\w.+-]+@[\w.-]+$", max_length=254)
    country: Country
    net: int = Field(ge=1, le=1_000_000)


class InvoiceShown(NewInvoice):
    model_config = ConfigDict(from_attributes=True)

    id: int
    gross: int | None
    sent: bool


class JobShown(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    worker: str
    state: JobState
    attempt: int
    scheduled_at: datetime
    errors: list[dict[str, Any]]


def shown(model: type[BaseModel], row: object) -> dict[str, Any]:
    return model.model_validate(row).model_dump(mode="json")


# -- Invoices --------------------------------------------------------------------------------------


@routes.put("/rates/<country>")
def set_rate(country: str) -> ResponseReturnValue:
    new = NewRate.model_validate({**request.get_json(), "country": country})
    db.session.merge(Rate(**new.model_dump()))
    db.session.commit()
    return new.model_dump()


@routes.post("/invoices")
def order_invoice() -> ResponseReturnValue:
    """Store an invoice and the job that calculates it in one transaction."""
    new = NewInvoice.model_validate(request.get_json())
    invoice = Invoice(**new.model_dump())
    db.session.add(invoice)
    db.session.flush()  # sets invoice.id
    oban().enqueue(Calculate.new(InvoiceArgs(invoice.id)), session=db.session)
    db.session.commit()
    return shown(InvoiceShown, invoice), 201


@routes.get("/invoices/<int:invoice_id>")
def show_invoice(invoice_id: int) -> ResponseReturnValue:
    return shown(InvoiceShown, find_invoice(invoice_id))


@routes.get("/invoices/<int:invoice_id>/jobs")
def show_jobs_of_invoice(invoice_id: int) -> ResponseReturnValue:
    invoice = find_invoice(invoice_id)
    jobs = select(Job).where(filters.args("invoice_id") == invoice.id).order_by(Job.id)
    return jsonify([shown(JobShown, job) for job in db.session.scalars(jobs)])


def find_invoice(invoice_id: int) -> Invoice:
    # The column is a 32-bit integer.
    return db.get_or_404(Invoice, invoice_id if invoice_id < 2**31 else 0)


# -- Jobs ------------------------------------------------------------------------------------------


@routes.get("/jobs")
def show_jobs() -> ResponseReturnValue:
    """The first jobs in a state, such as /jobs?state=retryable: those that have failed."""
    state = request.args.get("state", "retryable")
    if state not in set(JobState):
        abort(422, f"there is no state {state}")
    jobs = select(Job).where(Job.state == JobState(state)).order_by(Job.id).limit(100)
    return jsonify([shown(JobShown, job) for job in db.session.scalars(jobs)])


@routes.post("/jobs/<int:job_id>/retry")
def retry_job(job_id: int) -> ResponseReturnValue:
    job = oban().get_job(job_id, session=db.session)
    if job is None:
        abort(404, f"there is no job {job_id}")
    if not oban().retry_job(job, session=db.session):
        abort(409, "the job is available or executing")
    db.session.commit()
    return shown(JobShown, job)


# -- Errors ----------------------------------------------------------------------------------------


@routes.app_errorhandler(HTTPException)
def fail(error: HTTPException) -> ResponseReturnValue:
    return {"detail": error.description}, error.code or 500


@routes.app_errorhandler(ValidationError)
def refuse(error: ValidationError) -> ResponseReturnValue:
    return {"detail": error.errors(include_url=False, include_context=False, include_input=False)}, 422
