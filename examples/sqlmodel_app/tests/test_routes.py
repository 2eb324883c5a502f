"""What requests store, and what they wait for."""

import httpx
import pytest

from oban.testing import all_enqueued, assert_enqueued, drain_queue, refute_enqueued
from sqlmodel_app.jobs import CountMembers, SendWelcome

from .provider import Provider

ANN = {"name": "Ann", "email": "ann@example.com"}


async def test_signing_up_stores_a_member_and_the_job_that_welcomes_them(client: httpx.AsyncClient) -> None:
    answer = await client.post("/members", json=ANN, headers={"X-Request-ID": "r-1"})
    assert answer.status_code == 201
    member = answer.json()
    assert member == {**ANN, "id": member["id"], "welcomed": False}
    await assert_enqueued(
        worker=SendWelcome, queue="mailers", args={"member_id": member["id"]}, meta={"request_id": "r-1"}
    )


async def test_an_email_can_sign_up_once(client: httpx.AsyncClient) -> None:
    assert (await client.post("/members", json=ANN)).status_code == 201
    assert (await client.post("/members", json=ANN)).status_code == 409
    assert len(await all_enqueued(worker=SendWelcome)) == 1


async def test_a_bad_address_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("/members", json={**ANN, "email": "nobody"})).status_code == 422
    await refute_enqueued()


async def test_the_jobs_of_a_member_are_found_by_their_args(client: httpx.AsyncClient) -> None:
    ann = (await client.post("/members", json=ANN)).json()
    await client.post("/members", json={"name": "Bob", "email": "bob@example.com"})
    (job,) = (await client.get(f"/members/{ann['id']}/jobs")).json()
    assert (job["worker"], job["state"], job["errors"]) == (SendWelcome.worker_name, "available", [])


async def test_a_member_is_welcomed_after_signing_up(client: httpx.AsyncClient) -> None:
    ann = (await client.post("/members", json=ANN)).json()
    assert (await drain_queue("mailers"))["completed"] == 1
    assert (await client.get(f"/members/{ann['id']}")).json() == {**ann, "welcomed": True}


@pytest.mark.oban(mode="inline")
async def test_a_report_shows_what_its_job_has_recorded(client: httpx.AsyncClient) -> None:
    await client.post("/members", json=ANN)
    answer = await client.post("/report", headers={"X-Request-ID": "r-2"})
    assert answer.json() == {"members": 1, "welcomed": 0}
    await assert_enqueued(worker=CountMembers, state="completed", meta={"request_id": "r-2"})


async def test_a_discarded_job_is_retried_over_http(client: httpx.AsyncClient, provider: Provider) -> None:
    provider.status = 422
    ann = (await client.post("/members", json=ANN)).json()
    assert (await drain_queue("mailers"))["discarded"] == 1
    (job,) = (await client.get("/jobs?state=discarded")).json()
    provider.status = 202
    await client.put(f"/members/{ann['id']}/email", json={"email": "ann@example.org"})
    assert (await client.post(f"/jobs/{job['id']}/retry")).json()["state"] == "available"
    assert (await drain_queue("mailers"))["completed"] == 1
