"""What the workers do, with a mail provider that is a function."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from oban import Cancel, Job, Oban
from sqlmodel_app.database import engine, sessions
from sqlmodel_app.jobs import MemberArgs, SendWelcome
from sqlmodel_app.logs import restore_request_id
from sqlmodel_app.mail import Mail, Refused
from sqlmodel_app.models import Member


def provider(status: int) -> Mail:
    """A client of a provider that always answers with this status."""
    transport = httpx.MockTransport(lambda _: httpx.Response(status, text="no such mailbox"))
    return Mail(httpx.AsyncClient(transport=transport, base_url="http://mail.test"))


@pytest.fixture
async def ann(session: AsyncSession) -> Member:
    member = Member(name="Ann", email="ann@example.com")
    session.add(member)
    await session.commit()
    return member


async def send_welcome(member_id: int, session: AsyncSession, mail: Mail) -> Cancel | None:
    """Call the worker without a node."""
    args = MemberArgs(member_id)
    return await SendWelcome().process(SendWelcome.new(args), args, session, mail)


async def test_a_member_is_welcomed(session: AsyncSession, ann: Member) -> None:
    assert await send_welcome(ann.id, session, provider(202)) is None
    assert ann.welcomed


async def test_a_member_who_has_left_is_not_welcomed(session: AsyncSession) -> None:
    assert await send_welcome(1, session, provider(202)) == Cancel("the member has left")


async def test_a_provider_with_a_problem_is_asked_again_and_one_that_refuses_is_not(
    session: AsyncSession, ann: Member
) -> None:
    with pytest.raises(httpx.HTTPStatusError):
        await send_welcome(ann.id, session, provider(503))
    with pytest.raises(Refused, match=r"ann@example\.com: no such mailbox"):
        await send_welcome(ann.id, session, provider(422))
    assert not ann.welcomed


async def run(job: Job, mail: Mail) -> None:
    """Run a job on a node, as `oban start` would, until it has ended."""

    @asynccontextmanager
    async def lifespan(_: Oban) -> AsyncIterator[Mail]:
        yield mail

    queues = {"mailers": 1}
    middleware = [restore_request_id]
    async with Oban(
        engine, queues=queues, session=sessions, middleware=middleware, lifespan=lifespan
    ) as oban:
        await oban.wait(job, timeout=30)


async def test_the_log_says_why_a_job_of_a_request_is_discarded(
    session: AsyncSession, ann: Member, caplog: pytest.LogCaptureFixture
) -> None:
    job = SendWelcome.new(MemberArgs(ann.id), meta={"request_id": "r-7"})
    session.add(job)
    await session.commit()
    await run(job, provider(422))
    assert job.state == "discarded"
    (record,) = (found for found in caplog.records if found.name == "oban.executor")
    assert record.getMessage().endswith("discarded: Refused: ann@example.com: no such mailbox")
    assert vars(record)["request_id"] == "r-7"
