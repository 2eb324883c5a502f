"""The JSON API tells nobody what redaction and hidden fields keep from them."""

from typing import Any

import pytest

from oban import Job, Oban, Unique
from oban.web import Access, dashboard
from tests.support.rows import insert_rows, row
from tests.support.web import Visitor

CANARY = "canary-4711"
SAME_ORIGIN = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
ERROR = {"at": "2024-03-09T22:15:30.123456Z", "attempt": 1, "error": f"ValueError: {CANARY}"}


async def test_an_update_cannot_take_the_redacted_names_from_the_meta(oban: Oban) -> None:
    await insert_rows(oban.engine, row("available", args={"card": CANARY}, meta={"redact": ["card"]}))
    app = dashboard(oban)
    async with Visitor(app) as visitor:
        body = {"ids": [1], "changes": {"meta": {"redact": []}}}
        refused = await visitor.http.post("/api/jobs/update", json=body, headers=SAME_ORIGIN)
        assert refused.status_code == 422
        assert "changes.meta.redact" in refused.text
        assert CANARY not in (await visitor.get("/api/jobs/1")).text
    await app.aclose()


@pytest.mark.parametrize("state", ["retryable", "discarded"])
async def test_the_reason_why_a_job_does_not_run_has_no_hidden_error(oban: Oban, state: str) -> None:
    await insert_rows(oban.engine, row(state, errors=[ERROR]))
    app = dashboard(oban, authorize=lambda request: Access(user="eve", hidden=["errors"]))
    async with Visitor(app) as visitor:
        response = await visitor.get("/api/jobs/1/why")
    assert response.status_code == 200
    assert CANARY not in response.text
    await app.aclose()


@pytest.mark.parametrize("meta", [f"return={CANARY}", "return", f'{{"return": "{CANARY}"}}', "recorded.a=1"])
async def test_nobody_can_filter_by_hidden_recorded_values(oban: Oban, meta: str) -> None:
    await insert_rows(oban.engine, row("completed", meta={"recorded": True, "return": CANARY}))
    app = dashboard(oban, authorize=lambda request: Access.full("eve"))
    hidden = dashboard(
        oban,
        authorize=lambda request: Access(user="eve", permissions=["retry_jobs"], hidden=["recorded"]),
    )
    async with Visitor(app) as visitor:
        assert (await visitor.get("/api/jobs", params={"meta": meta})).status_code == 200
    async with Visitor(hidden) as visitor:
        assert (await visitor.get("/api/jobs", params={"meta": meta})).status_code == 403
        body = {"filter": {"meta": [meta]}, "dry_run": True}
        refused = await visitor.http.post("/api/jobs/retry", json=body, headers=SAME_ORIGIN)
        assert refused.status_code == 403
        assert (await visitor.get("/api/jobs", params={"meta": "source=web"})).status_code == 200
    await app.aclose()
    await hidden.aclose()


@pytest.mark.parametrize(
    ("meta", "hidden"), [({"redact": ["card"]}, []), ({}, ["args"]), ({}, ["meta"])], ids=str
)
async def test_the_unique_key_is_not_shown_to_those_who_do_not_see_what_it_is_made_of(
    oban: Oban, meta: dict[str, Any], hidden: list[str]
) -> None:
    await oban.enqueue(Job(worker="app.Pay", args={"card": 4711}, meta=meta, unique=Unique()))
    app = dashboard(oban, authorize=lambda request: Access(user="eve", hidden=hidden))
    async with Visitor(app) as visitor:
        assert (await visitor.get("/api/jobs/1")).json()["unique_key"] is None
        assert (await visitor.get("/api/jobs")).json()["jobs"][0]["unique_key"] is None
    await app.aclose()


async def test_the_unique_key_is_shown_to_those_who_see_everything(oban: Oban) -> None:
    job = await oban.enqueue(Job(worker="app.Pay", args={"card": 4711}, unique=Unique()))
    app = dashboard(oban)
    async with Visitor(app) as visitor:
        assert (await visitor.get("/api/jobs/1")).json()["unique_key"] == job.unique_key
    await app.aclose()
