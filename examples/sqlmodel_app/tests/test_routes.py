"""What requests store, without running any job."""

import httpx
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from oban import Job
from sqlmodel_app.jobs import SendWelcome

ANN = {"name": "Ann", "email": "ann@example.com"}


async def enqueued(session: AsyncSession) -> list[Job]:
    return list(await session.exec(select(Job).order_by(Job.id)))


async def test_signing_up_stores_a_member_and_the_job_that_welcomes_them(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    answer = await client.post("/members", json=ANN, headers={"X-Request-ID": "r-1"})
    assert answer.status_code == 201
    member = answer.json()
    assert member == {**ANN, "id": member["id"], "welcomed": False}
    (job,) = await enqueued(session)
    assert (job.worker, job.queue) == (SendWelcome.worker_name, "mailers")
    assert (job.args, job.meta) == ({"member_id": member["id"]}, {"request_id": "r-1"})


async def test_an_email_can_sign_up_once(client: httpx.AsyncClient, session: AsyncSession) -> None:
    assert (await client.post("/members", json=ANN)).status_code == 201
    assert (await client.post("/members", json=ANN)).status_code == 409
    assert len(await enqueued(session)) == 1


async def test_a_bad_address_is_refused(client: httpx.AsyncClient, session: AsyncSession) -> None:
    assert (await client.post("/members", json={**ANN, "email": "nobody"})).status_code == 422
    assert await enqueued(session) == []


async def test_the_jobs_of_a_member_are_found_by_their_args(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    ann = (await client.post("/members", json=ANN)).json()
    await client.post("/members", json={"name": "Bob", "email": "bob@example.com"})
    (job,) = (await client.get(f"/members/{ann['id']}/jobs")).json()
    assert (job["worker"], job["state"], job["errors"]) == (SendWelcome.worker_name, "available", [])
