"""The JSON API: what each request answers and changes."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from oban import Job, Oban
from oban.web import Dashboard, dashboard
from tests.support.api import ApiVisitor


@pytest.fixture
async def api(app: Dashboard) -> AsyncIterator[ApiVisitor]:
    """A program on this machine, which may do everything."""
    async with ApiVisitor(app) as made:
        yield made


async def enqueue(oban: Oban, number: int, **fields: Any) -> list[int]:
    """Enqueue jobs; return their ids."""
    values: Any = {"worker": "app.Send", "queue": "mail", **fields}
    jobs = await oban.enqueue_many([Job(**values) for _ in range(number)])
    return [job.id for job in jobs]


async def pages(api: ApiVisitor, **query: Any) -> list[list[int]]:
    """The ids of the jobs of each page of a list."""
    found = []
    page = await api.ask("jobs", **query)
    while True:
        found.append([job["id"] for job in page["jobs"]])
        if page["next"] is None:
            return found
        page = await api.ask(page["next"].removeprefix("/api/"))


async def test_enqueued_jobs_are_listed_and_shown(api: ApiVisitor) -> None:
    new = {"worker": "app.Send", "args": {"to": 7}, "queue": "mail", "tags": ["vip"], "priority": 2}
    [made] = (await api.tell("jobs", {"jobs": [new]}, 201))["jobs"]
    assert {name: made[name] for name in new} == new
    assert (made["state"], made["conflict"]) == ("available", False)
    [listed] = (await api.ask("jobs"))["jobs"]
    assert {**listed, "conflict": False} == made
    assert await api.ask(f"jobs/{made['id']}") == {**listed, "attempts": []}
    assert (await api.ask(f"jobs/{made['id']}/why"))["reasons"][0]["code"] == "no_node"


async def test_a_job_is_enqueued_for_the_time_of_a_request(api: ApiVisitor) -> None:
    at = "2124-03-09T22:17:30+01:00"
    jobs = [{"worker": "app.Send", "scheduled_at": at}, {"worker": "app.Send", "schedule_in": 60}]
    first, second = (await api.tell("jobs", {"jobs": jobs}, 201))["jobs"]
    assert datetime.fromisoformat(first["scheduled_at"]) == datetime.fromisoformat(at)
    assert first["state"] == second["state"] == "scheduled"
    assert datetime.fromisoformat(second["scheduled_at"]) > datetime.now(UTC) + timedelta(seconds=30)


@pytest.mark.parametrize("sort", ["newest", "oldest", "due"])
@pytest.mark.parametrize("filtered", [{}, {"queue": "mail"}])
async def test_pages_have_each_job_once(
    oban: Oban, api: ApiVisitor, sort: str, filtered: dict[str, str]
) -> None:
    ids = await enqueue(oban, 7)
    found = await pages(api, sort=sort, limit=3, **filtered)
    assert [len(page) for page in found] == [3, 3, 1]
    expected = ids[::-1] if sort == "newest" else ids
    assert [job_id for page in found for job_id in page] == expected


async def test_a_cursor_stays_stable_while_jobs_are_inserted_and_deleted(oban: Oban, api: ApiVisitor) -> None:
    ids = await enqueue(oban, 6)
    page = await api.ask("jobs", limit=2)
    assert [job["id"] for job in page["jobs"]] == ids[:3:-1]
    await enqueue(oban, 3)
    await oban.delete_job(ids[4])
    await oban.delete_job(ids[3])
    following = await api.ask("jobs", limit=2, cursor=page["next_cursor"])
    assert [job["id"] for job in following["jobs"]] == [ids[2], ids[1]]


async def test_sparse_jobs_are_found_in_many_windows(
    oban: Oban, api: ApiVisitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oban.web.api.selecting.WINDOW", 4)
    monkeypatch.setattr("oban.web.api.selecting.BUDGET", 0.0)
    ids = []
    for _ in range(3):
        ids += await enqueue(oban, 1, queue="rare")
        await enqueue(oban, 9)
    found = await pages(api, queue="rare")
    assert [job_id for page in found for job_id in page] == ids[::-1]
    assert [] in found
    oldest = await pages(api, queue="rare", sort="oldest")
    assert [job_id for page in oldest for job_id in page] == ids
    counted, part = 0, await api.ask("counts", queue="rare")
    while part["next"]:
        counted += part["counts"]["available"]
        part = await api.ask(part["next"].removeprefix("/api/"))
    assert counted + part["counts"]["available"] == 3
    cancelled, cursor = 0, None
    while True:
        batch = await api.tell("jobs/cancel", {"filter": {"queue": ["rare"]}, "cursor": cursor})
        cancelled, cursor = cancelled + batch["changed"], batch["next_cursor"]
        if cursor is None:
            break
    assert cancelled == 3


@pytest.mark.parametrize("filter_", ["state", "several", "args", "q"])
async def test_filters_find_their_jobs(oban: Oban, api: ApiVisitor, filter_: str) -> None:
    [wanted] = await enqueue(oban, 1, args={"customer": {"id": 7}}, schedule_in=60)
    await enqueue(oban, 2, args={"customer": {"id": 8}})
    query: dict[str, dict[str, Any]] = {
        "state": {"state": ["scheduled", "retryable"]},
        "several": {"queue": "mail", "state": "scheduled"},
        "args": {"args": "customer.id=7"},
        "q": {"q": "state:scheduled args.customer.id:7 -queue:other"},
    }
    assert await pages(api, **query[filter_]) == [[wanted]]


async def test_jobs_are_changed_by_ids_with_reasons_for_those_left_alone(oban: Oban, api: ApiVisitor) -> None:
    first, second = await enqueue(oban, 2)
    await oban.cancel_job(first)
    body = {"ids": [first, second, 99]}
    plan = await api.tell("jobs/cancel", {**body, "dry_run": True})
    assert (plan["changed"], plan["would_change"]) == (1, {"available": 1})
    done = await api.tell("jobs/cancel", body)
    assert done["changed"] == 1
    assert [(each["id"], each["reason"]) for each in done["left_alone"]] == [
        (first, "state"),
        (99, "missing"),
    ]
    assert (await api.ask(f"jobs/{second}"))["state"] == "cancelled"


async def test_a_large_filter_is_changed_in_batches(oban: Oban, api: ApiVisitor) -> None:
    await enqueue(oban, 5)
    await enqueue(oban, 2, queue="other")
    body: dict[str, Any] = {"filter": {"queue": ["mail"]}, "limit": 2}
    sizes, cursor = [], None
    while True:
        batch = await api.tell("jobs/delete", {**body, "cursor": cursor})
        sizes.append(batch["changed"])
        if (cursor := batch["next_cursor"]) is None:
            break
    assert sizes == [2, 2, 1]
    assert (await api.ask("counts"))["counts"]["available"] == 2


async def test_jobs_are_updated_and_retried_with_new_fields(oban: Oban, api: ApiVisitor) -> None:
    [job_id] = await enqueue(oban, 1)
    changes = {"priority": 0, "tags": ["late"], "args": {"to": 8}}
    assert (await api.tell("jobs/update", {"ids": [job_id], "changes": changes}))["changed"] == 1
    shown = await api.ask(f"jobs/{job_id}")
    assert {name: shown[name] for name in changes} == changes
    await oban.cancel_job(job_id)
    body = {"all": True, "changes": {"queue": "slow", "schedule_in": 60}}
    assert (await api.tell("jobs/retry", body))["changed"] == 1
    shown = await api.ask(f"jobs/{job_id}")
    assert (shown["queue"], shown["state"]) == ("slow", "scheduled")


async def test_queues_are_listed_and_commanded(oban: Oban, api: ApiVisitor) -> None:
    await enqueue(oban, 1)
    change = await api.tell("queues/pause", {"queue": "mail"})
    assert change["settings"][0]["paused"] is True
    assert change["warnings"] == ["No node runs the queue mail now. The command is stored for later."]
    await api.tell("queues/scale", {"queue": "mail", "limit": 3, "node": "web-1"})
    await api.tell("queues/start", {"queue": "slow", "paused": True})
    await api.tell("queues/stop", {"queue": "slow"})
    await api.tell("queues/resume", {"queue": "*"})
    found = {queue["queue"]: queue for queue in await api.ask("queues")}
    assert found["mail"]["counts"]["available"] == 1
    assert found["slow"]["settings"][0]["running"] is False
    assert (await api.ask("stats", count_limit=0))["counts"]["available"] == 1
    assert await api.ask("nodes") == []


async def test_periodic_entries_are_listed_and_changed(api: ApiVisitor) -> None:
    new = {"name": "a/b ü", "expression": "0 3 * * *", "worker": "app.Report", "args": {"kind": "daily"}}
    made = await api.tell("periodic", new, 201)
    name = {"name": new["name"]}
    assert made["args"] == new["args"]
    assert (await api.tell("periodic/pause", name))["paused"] is True
    assert (await api.tell("periodic/resume", name))["paused"] is False
    changed = await api.tell("periodic/update", {**name, "changes": {"expression": "@hourly"}})
    assert changed["override"] == {"expression": "@hourly"}
    assert (await api.tell("periodic/reset", name))["override"] == {}
    job = await api.tell("periodic/run", name, 201)
    assert (job["worker"], job["args"]) == ("app.Report", {"kind": "daily"})
    assert len(await api.ask("periodic", name=new["name"])) == 1
    await api.tell("periodic/delete", name)
    assert await api.ask("periodic") == []
    await api.ask("periodic", 404, name=new["name"])
    await api.tell("periodic/run", name, 404)


async def test_the_health_of_an_instance_is_answered(api: ApiVisitor) -> None:
    health = await api.ask("health", skip="trigger", oldest_job_warning=1)
    assert health["instance"] == "Oban"
    assert "trigger" not in {finding["code"] for finding in health["findings"]}


@pytest.mark.either_database
async def test_several_instances_have_an_api_each(oban: Oban) -> None:
    other = Oban(oban.engine, name="Other")
    app = dashboard(oban, other)
    await enqueue(oban, 2)
    mounted = Starlette(routes=[Mount("/admin/oban", app=app)])
    async with ApiVisitor(mounted, base="/admin/oban/Other") as api:
        await api.tell("queues/pause", {"queue": "mail"})
        page = await api.ask("jobs", limit=1)
        assert page["next"].startswith("/admin/oban/Other/api/jobs?limit=1&cursor=")
        response = await api.http.get(page["next"])
        assert len(response.json()["jobs"]) == 1
        assert (await api.ask("openapi.json"))["servers"] == [{"url": "/admin/oban/Other"}]
        await api.ask("nothing", 404)
    assert (await other.list_queue_settings())[0].paused
    assert await oban.list_queue_settings() == []
    await app.aclose()


async def test_jobs_that_are_due_are_found_in_windows_of_time(
    oban: Oban, api: ApiVisitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oban.web.api.selecting.WINDOW", 4)
    monkeypatch.setattr("oban.web.api.selecting.BUDGET", 0.0)
    # Of all jobs, there are too many to be sorted without an index.
    monkeypatch.setattr("oban.web.api.jobs.MOST_SORTED", 5)
    ids = []
    for number in range(3):
        ids += await enqueue(oban, 1, queue="rare", schedule_in=3600 - number)
        await enqueue(oban, 9, schedule_in=3600 - number)
    found = await pages(api, queue="rare", state="scheduled", sort="due")
    assert [job_id for page in found for job_id in page] == ids[::-1]
    assert [] in found
    problem = await api.ask("jobs", 422, queue="rare", sort="due")
    assert problem["errors"][0]["field"] == "sort"
    assert sum(map(len, await pages(api, q="state:scheduled", sort="due"))) == 30
