"""What the workers do: alone, and when a node would run them."""

import httpx
import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from oban import Cancel, Oban, Record
from oban.testing import assert_enqueued, drain_queue, process_job
from sqlmodel_app.jobs import CountMembers, MemberArgs, SendWelcome
from sqlmodel_app.mail import Refused
from sqlmodel_app.models import Member

from .provider import Provider

# Without it, the helpers would use the `Oban` of sqlmodel_app.jobs, and its database.
pytestmark = pytest.mark.usefixtures("oban")


@pytest.fixture
async def ann(session: AsyncSession) -> Member:
    member = Member(name="Ann", email="ann@example.com")
    session.add(member)
    await session.commit()
    return member


async def test_a_member_is_welcomed(session: AsyncSession, ann: Member, provider: Provider) -> None:
    assert await process_job(SendWelcome.new(MemberArgs(ann.id))) is None
    assert provider.accepted == [f"welcome-{ann.id}"]
    await session.refresh(ann)
    assert ann.welcomed


async def test_a_member_who_has_left_is_not_welcomed(provider: Provider) -> None:
    assert await process_job(SendWelcome.new(MemberArgs(1))) == Cancel("the member has left")
    assert provider.accepted == []


async def test_members_are_counted(session: AsyncSession, ann: Member) -> None:
    session.add(Member(name="Bob", email="bob@example.com", welcomed=True))
    await session.commit()
    assert await process_job(CountMembers.new()) == Record({"members": 2, "welcomed": 1})


async def test_a_provider_with_a_problem_is_asked_again_and_one_that_refuses_is_not(
    session: AsyncSession, ann: Member, oban: Oban, provider: Provider
) -> None:
    await oban.enqueue(SendWelcome.new(MemberArgs(ann.id)))
    provider.status = 503
    with pytest.raises(httpx.HTTPStatusError):
        await drain_queue("mailers")
    await assert_enqueued(worker=SendWelcome, state="retryable")
    provider.status = 422
    counts = await drain_queue("mailers")
    assert (counts["discarded"], provider.accepted) == (1, [])
    await session.refresh(ann)
    assert not ann.welcomed


async def test_the_log_says_why_a_job_of_a_request_is_discarded(
    oban: Oban, ann: Member, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    provider.status = 422
    await oban.enqueue(SendWelcome.new(MemberArgs(ann.id), meta={"request_id": "r-7"}))
    assert (await drain_queue("mailers"))["discarded"] == 1
    (record,) = (found for found in caplog.records if found.name == "oban.executor")
    assert record.getMessage().endswith("discarded: Refused: ann@example.com: no such mailbox")
    assert vars(record)["request_id"] == "r-7"


async def test_a_refusal_says_why(ann: Member, provider: Provider) -> None:
    provider.status = 422
    with pytest.raises(Refused, match=r"ann@example\.com: no such mailbox"):
        await process_job(SendWelcome.new(MemberArgs(ann.id)))
