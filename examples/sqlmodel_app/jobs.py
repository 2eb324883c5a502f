"""The jobs, and the `Oban` that runs them: `oban start sqlmodel_app.jobs:oban`."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from oban import Cancel, Job, Oban, Record, Worker

from .database import engine, sessions
from .logs import configure, restore_request_id
from .mail import Mail, Refused
from .models import Member

logger = logging.getLogger(__name__)

MAIL_URL = os.environ.get("MAIL_URL", "http://127.0.0.1:8025")

configure()


@asynccontextmanager
async def lifespan(_: Oban) -> AsyncIterator[Mail]:
    """Open one client for all jobs of a node. Workers get it as the parameter of this type."""
    async with Mail.connect(MAIL_URL) as mail:
        logger.info("sending mail through %s", MAIL_URL)
        yield mail
    logger.info("closed the connections to the mail provider")


oban = Oban(
    engine,
    queues={"mailers": 5, "reports": 1},
    session=sessions,
    middleware=[restore_request_id],
    lifespan=lifespan,
)


@dataclass(frozen=True)
class MemberArgs:
    member_id: int


class SendWelcome(
    Worker[MemberArgs],
    queue="mailers",
    max_attempts=5,
    # Whoever sees the log or GET /jobs?state=discarded corrects the address, and retries the job.
    discard_on=Refused,
    retry_on={httpx.TransportError: 10},
):
    async def process(self, job: Job, args: MemberArgs, session: AsyncSession, mail: Mail) -> Cancel | None:
        member = await session.get(Member, args.member_id)
        if member is None:
            return Cancel("the member has left")
        await mail.send(member.email, f"Welcome, {member.name}", key=f"welcome-{member.id}")
        member.welcomed = True
        logger.info("welcomed member %s", member.id)
        return None


class CountMembers(Worker, queue="reports", max_attempts=1):
    async def process(self, job: Job, session: AsyncSession) -> Record:
        by_welcomed = select(Member.welcomed, func.count()).group_by(col(Member.welcomed))
        counts = dict((await session.exec(by_welcomed)).all())
        return Record({"members": sum(counts.values()), "welcomed": counts.get(True, 0)})
