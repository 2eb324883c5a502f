"""The application: clients place orders and manage their jobs over HTTP."""

import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Annotated, Any, TypedDict

from fastapi import Depends, FastAPI, HTTPException, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from oban import Job, JobState, Oban, filters, migration
from oban.errors import InvalidJob

from .models import Base, Order, Product
from .workers import AskForReview, OrderArgs, SendConfirmation

# -- Resources of the application ------------------------------------------------------------------


class State(TypedDict):
    oban: Oban
    sessions: async_sessionmaker[AsyncSession]


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[State]:
    """Create the tables, then run jobs on the application's event loop and engine while it serves."""
    engine = create_async_engine(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///orders.db"))
    try:
        async with engine.begin() as connection:
            await connection.run_sync(migration.upgrade)
            await connection.run_sync(Base.metadata.create_all)
        async with Oban(engine, queues={"mailers": 5}) as oban:
            yield {"oban": oban, "sessions": async_sessionmaker(engine, expire_on_commit=False)}
    finally:
        await engine.dispose()


app = FastAPI(title="Orders", lifespan=lifespan)


# -- Resources of a request ------------------------------------------------------------------------


def get_oban(request: Request) -> Oban:
    oban: Oban = request.state.oban
    return oban


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    """One transaction: committed when the endpoint returns, rolled back when it raises."""
    async with request.state.sessions.begin() as session:
        yield session


Queue = Annotated[Oban, Depends(get_oban)]
# The scope "function" commits before the response is sent, not after it.
Database = Annotated[AsyncSession, Depends(get_session, scope="function")]


async def get_order(order_id: Annotated[int, Path(gt=0, lt=2**31)], session: Database) -> Order:
    order = await session.get(Order, order_id)
    if order is None:
        raise HTTPException(404, f"there is no order {order_id}")
    return order


async def get_job(job_id: int, session: Database, oban: Queue) -> Job:
    job = await oban.get_job(job_id, session=session)
    if job is None:
        raise HTTPException(404, f"there is no job {job_id}")
    return job


OfOrder = Annotated[Order, Depends(get_order)]
OfJob = Annotated[Job, Depends(get_job)]


# -- Orders ----------------------------------------------------------------------------------------

Name = Annotated[str, Field(pattern=r"^[\w -]{1,80}$")]


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


@app.put("/products/{name}")
async def stock_product(name: Name, stock: Stock, session: Database) -> Stock:
    await session.merge(Product(name=name, stock=stock.stock))
    return stock


@app.post("/orders", status_code=201, response_model=OrderShown)
async def place_order(new: NewOrder, session: Database) -> Order:
    """Store an order, its jobs and the reduced stock in one transaction."""
    if await session.get(Product, new.product) is None:
        raise HTTPException(404, f"there is no product {new.product}")
    order = Order(**new.model_dump())
    session.add(order)
    await session.flush()  # sets order.id
    session.add(SendConfirmation.new(OrderArgs(order.id)))
    session.add(AskForReview.new(OrderArgs(order.id), schedule_in=timedelta(days=7)))
    # Last, because all other orders of the product wait for the lock on its row until the commit.
    left = await session.scalar(
        update(Product)
        .where(Product.name == new.product, Product.stock >= new.quantity)
        .values(stock=Product.stock - new.quantity)
        .returning(Product.stock)
    )
    if left is None:
        raise HTTPException(409, f"{new.product} is sold out")
    return order


@app.get("/orders/{order_id}", response_model=OrderShown)
async def show_order(order: OfOrder) -> Order:
    return order


# -- Their jobs ------------------------------------------------------------------------------------


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


@app.get("/orders/{order_id}/jobs", response_model=list[JobShown])
async def show_jobs(order: OfOrder, session: Database) -> Sequence[Job]:
    jobs = select(Job).where(filters.args("order_id") == order.id).order_by(Job.id)
    return (await session.scalars(jobs)).all()


@app.post("/jobs/{job_id}/cancel", response_model=JobShown)
async def cancel_job(job: OfJob, session: Database, oban: Queue) -> Job:
    if not await oban.cancel_job(job, session=session):
        raise HTTPException(409, "the job has ended")
    return job


@app.post("/jobs/{job_id}/retry", response_model=JobShown)
async def retry_job(job: OfJob, session: Database, oban: Queue) -> Job:
    if not await oban.retry_job(job, session=session):
        raise HTTPException(409, "the job is available or executing")
    return job


@app.patch("/jobs/{job_id}", response_model=JobShown)
async def change_job(job: OfJob, changes: JobChanges, session: Database, oban: Queue) -> Job:
    def change(current: Job) -> dict[str, Any]:
        # Called while the row is locked, so no node can start the job in between.
        if current.state not in (JobState.SCHEDULED, JobState.AVAILABLE, JobState.RETRYABLE):
            raise HTTPException(409, f"the job is {current.state}")
        return changes.model_dump(exclude_unset=True)

    return await oban.update_job(job, change, session=session)


# -- Errors ----------------------------------------------------------------------------------------


@app.exception_handler(InvalidJob)
async def refuse(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=422)


@app.exception_handler(RequestValidationError)
async def refuse_shape(_: Request, error: RequestValidationError) -> Response:
    # FastAPI's own response repeats the input, and fails if that has a NaN or a lone surrogate.
    problems = [{key: problem[key] for key in ("type", "loc", "msg")} for problem in error.errors()]
    return Response(json.dumps({"detail": problems}), status_code=422, media_type="application/json")
