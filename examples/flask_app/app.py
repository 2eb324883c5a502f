"""The application: clients place orders and manage their jobs over HTTP."""

import atexit
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

import click
from flask import Blueprint, Flask, abort, current_app, jsonify, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from sqlalchemy import create_engine, select, update
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from werkzeug.exceptions import HTTPException

from oban import Job, JobState, SyncOban, filters, migration
from oban.errors import InvalidJob

from .models import Base, Order, Product
from .workers import AskForReview, OrderArgs, SendConfirmation

# -- The application -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Database:
    """Resources of the application. Each thread has a `session` of its own."""

    oban: SyncOban
    session: scoped_session[Session]


def connect() -> Database:
    engine = create_engine(os.environ.get("DATABASE_URL", "sqlite:///orders.db"))
    atexit.register(engine.dispose)
    return Database(SyncOban(engine), scoped_session(sessionmaker(engine, expire_on_commit=False)))


def create_app(database: Database | None = None) -> Flask:
    database = database or connect()
    app = Flask(__name__)
    app.extensions["database"] = database
    app.register_blueprint(views)

    @app.teardown_appcontext
    def end_session(_: BaseException | None) -> None:
        database.session.remove()  # rolls back uncommitted changes

    @app.cli.command("install")
    def install() -> None:
        """Create the tables."""
        with database.session.begin():
            connection = database.session.connection()
            migration.upgrade(connection)
            Base.metadata.create_all(connection)
        click.echo(f"installed in {connection.engine.url!r}")

    return app


def database() -> Database:
    found: Database = current_app.extensions["database"]
    return found


# -- Requests and responses ------------------------------------------------------------------------

Name = Annotated[str, Field(pattern=r"^[\w -]{1,80}$")]
NAME = TypeAdapter[str](Name)


class Stock(BaseModel):
    stock: int = Field(ge=0, le=1_000_000)


class NewOrder(BaseModel):
    product: Name
    quantity: int = Field(ge=1, le=1000)
    email: str = Field(pattern=r"^[\w.+-]+@[\w.-]+$", max_length=254)


class OrderShown(NewOrder):
    model_config = ConfigDict(from_attributes=True)

    id: int
    confirmed: bool
    asked_for_review: bool


class JobShown(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    worker: str
    state: JobState
    priority: int
    attempt: int
    scheduled_at: datetime


class JobChanges(BaseModel):
    """The fields that a client can change. Oban checks the values."""

    model_config = ConfigDict(extra="forbid")

    priority: int = 0
    schedule_in: float = 0


def shown(model: type[BaseModel], row: object) -> dict[str, Any]:
    return model.model_validate(row).model_dump(mode="json")


# -- Orders ----------------------------------------------------------------------------------------

views = Blueprint("orders", __name__)


@views.put("/products/<name>")
def stock_product(name: str) -> ResponseReturnValue:
    session, stock = database().session, Stock.model_validate(request.get_json())
    session.merge(Product(name=NAME.validate_python(name), stock=stock.stock))
    session.commit()
    return stock.model_dump()


@views.post("/orders")
def place_order() -> ResponseReturnValue:
    """Store an order, its jobs and the reduced stock in one transaction."""
    session, new = database().session, NewOrder.model_validate(request.get_json())
    if session.get(Product, new.product) is None:
        abort(404, f"there is no product {new.product}")
    order = Order(**new.model_dump())
    session.add(order)
    session.flush()  # sets order.id
    session.add(SendConfirmation.new(OrderArgs(order.id)))
    session.add(AskForReview.new(OrderArgs(order.id), schedule_in=timedelta(days=7)))
    # Last, because all other orders of the product wait for the lock on its row until the commit.
    left = session.scalar(
        update(Product)
        .where(Product.name == new.product, Product.stock >= new.quantity)
        .values(stock=Product.stock - new.quantity)
        .returning(Product.stock)
    )
    if left is None:
        abort(409, f"{new.product} is sold out")
    session.commit()
    return shown(OrderShown, order), 201


@views.get("/orders/<int:order_id>")
def show_order(order_id: int) -> ResponseReturnValue:
    return shown(OrderShown, find_order(order_id))


def find_order(order_id: int) -> Order:
    # The column is a 32-bit integer.
    order = database().session.get(Order, order_id) if order_id < 2**31 else None
    if order is None:
        abort(404, f"there is no order {order_id}")
    return order


# -- Their jobs ------------------------------------------------------------------------------------


@views.get("/orders/<int:order_id>/jobs")
def show_jobs(order_id: int) -> ResponseReturnValue:
    order = find_order(order_id)
    jobs = select(Job).where(filters.args("order_id") == order.id).order_by(Job.id)
    return jsonify([shown(JobShown, job) for job in database().session.scalars(jobs)])


@views.post("/jobs/<int:job_id>/cancel")
def cancel_job(job_id: int) -> ResponseReturnValue:
    oban, session = database().oban, database().session
    job = find_job(job_id)
    if not oban.cancel_job(job, session=session):
        abort(409, "the job has ended")
    session.commit()
    return shown(JobShown, job)


@views.post("/jobs/<int:job_id>/retry")
def retry_job(job_id: int) -> ResponseReturnValue:
    oban, session = database().oban, database().session
    job = find_job(job_id)
    if not oban.retry_job(job, session=session):
        abort(409, "the job is available or executing")
    session.commit()
    return shown(JobShown, job)


@views.patch("/jobs/<int:job_id>")
def change_job(job_id: int) -> ResponseReturnValue:
    oban, session = database().oban, database().session
    changes = JobChanges.model_validate(request.get_json()).model_dump(exclude_unset=True)

    def change(current: Job) -> dict[str, Any]:
        # Called while the row is locked, so no node can start the job in between.
        if current.state not in (JobState.SCHEDULED, JobState.AVAILABLE, JobState.RETRYABLE):
            abort(409, f"the job is {current.state}")
        return changes

    job = oban.update_job(find_job(job_id), change, session=session)
    session.commit()
    return shown(JobShown, job)


def find_job(job_id: int) -> Job:
    job = database().oban.get_job(job_id, session=database().session)
    if job is None:
        abort(404, f"there is no job {job_id}")
    return job


# -- Errors ----------------------------------------------------------------------------------------


@views.app_errorhandler(HTTPException)
def fail(error: HTTPException) -> ResponseReturnValue:
    return {"detail": error.description}, error.code or 500


@views.app_errorhandler(InvalidJob)
def refuse(error: InvalidJob) -> ResponseReturnValue:
    return {"detail": str(error)}, 422


@views.app_errorhandler(ValidationError)
def refuse_shape(error: ValidationError) -> ResponseReturnValue:
    return {"detail": error.errors(include_url=False, include_context=False, include_input=False)}, 422
