"""The web server: members sign up, and operators look after their jobs. It runs no jobs itself."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any
from uuid import uuid4

from fastapi import Depends, FastAPI, HTTPException, Path, Request, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from oban import Job, JobState, Oban

from .database import engine, sessions
from .jobs import CountMembers, MemberArgs, SendWelcome, oban
from .logs import request_id
from .models import Member, MemberShown, NewEmail, NewMember


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    await engine.dispose()


app = FastAPI(title="Members", lifespan=lifespan)


@app.middleware("http")
async def set_request_id(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    request_id.set(request.headers.get("X-Request-ID", "")[:100] or uuid4().hex)
    return await call_next(request)


async def get_session() -> AsyncIterator[AsyncSession]:
    """One transaction: committed when the endpoint returns, rolled back when it raises."""
    async with sessions.begin() as session:
        yield session


def get_oban() -> Oban:
    return oban


# The scope "function" commits before the response is sent, not after it.
Session = Annotated[AsyncSession, Depends(get_session, scope="function")]
Queue = Annotated[Oban, Depends(get_oban)]
Id = Annotated[int, Path(gt=0, lt=2**31)]


# -- Members ---------------------------------------------------------------------------------------


@app.post("/members", status_code=201, response_model=MemberShown)
async def sign_up(new: NewMember, session: Session) -> Member:
    """Store a member and the job that welcomes them in one transaction."""
    member = Member.model_validate(new)
    session.add(member)
    try:
        await session.flush()  # sets member.id
    except IntegrityError:
        raise HTTPException(409, f"{new.email} is a member already") from None
    session.add(SendWelcome.new(MemberArgs(member.id), meta={"request_id": request_id.get()}))
    return member


async def get_member(member_id: Id, session: Session) -> Member:
    member = await session.get(Member, member_id)
    if member is None:
        raise HTTPException(404, f"there is no member {member_id}")
    return member


OfMember = Annotated[Member, Depends(get_member)]


@app.get("/members/{member_id}", response_model=MemberShown)
async def show_member(member: OfMember) -> Member:
    return member


@app.put("/members/{member_id}/email", response_model=MemberShown)
async def change_email(member: OfMember, new: NewEmail) -> Member:
    member.email = new.email
    return member


class ReportShown(BaseModel):
    members: int
    welcomed: int


@app.post("/report", response_model=ReportShown)
async def report(oban: Queue) -> Any:
    """Let a node count the members, and wait for what it records."""
    job = await oban.enqueue(CountMembers.new(meta={"request_id": request_id.get()}))
    try:
        await oban.wait(job, timeout=20)
    except TimeoutError:
        raise HTTPException(503, f"job {job.id} has not ended yet") from None
    if job.state != JobState.COMPLETED:
        raise HTTPException(500, f"job {job.id} has failed")
    return job.recorded


# -- Their jobs ------------------------------------------------------------------------------------


class JobShown(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    worker: str
    state: JobState
    attempt: int
    scheduled_at: datetime
    errors: list[dict[str, Any]]


@app.get("/members/{member_id}/jobs", response_model=list[JobShown])
async def show_jobs_of_member(member: OfMember, session: Session) -> list[Job]:
    await session.refresh(member, ["jobs"])
    return member.jobs


@app.get("/jobs", response_model=list[JobShown])
async def show_jobs(state: JobState, session: Session) -> Sequence[Job]:
    return (await session.exec(select(Job).where(Job.state == state).order_by(Job.id).limit(100))).all()


@app.post("/jobs/{job_id}/retry", response_model=JobShown)
async def retry_job(job_id: Id, session: Session, oban: Queue) -> Job:
    job = await oban.get_job(job_id, session=session)
    if job is None:
        raise HTTPException(404, f"there is no job {job_id}")
    if not await oban.retry_job(job, session=session):
        raise HTTPException(409, "the job is available or executing")
    return job
