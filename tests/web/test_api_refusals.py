"""What the JSON API refuses: wrong requests, users without a permission, other sites, and hidden fields."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from oban import Job, Oban, Worker
from oban.telemetry import DashboardAction, DashboardRefused
from oban.web import Access, Dashboard, dashboard
from oban.web.access import PERMISSIONS
from oban.web.api import bodies
from oban.web.api.problems import MEDIA_TYPE
from oban.web.api.routes import API_ROUTES
from oban.web.api.routing import ApiAction
from tests.support.api import ApiVisitor, checked

ACTIONS = [route for route in API_ROUTES if isinstance(route, ApiAction)]
NEW = {"jobs": [{"worker": "app.Send"}]}


@pytest.fixture
async def api(app: Dashboard) -> AsyncIterator[ApiVisitor]:
    """A program on this machine, which may do everything."""
    async with ApiVisitor(app) as made:
        yield made


async def send(api: ApiVisitor, path: str, content: bytes, status: int, **headers: str) -> Any:
    """The problem document that POST of some bytes answers."""
    kind = {"Content-Type": headers.pop("kind", "application/json")}
    response = await api.http.post(f"/api/{path}", content=content, headers={**kind, **headers})
    return checked(response, "post", path, status)


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"jobs": []}, "jobs", "at least 1"),
        ({"jobs": [{"args": {}}]}, "jobs[0].worker", "required"),
        ({"jobs": [{"worker": "a", "ars": {}}]}, "jobs[0].ars", "not permitted"),
        ({"jobs": [{"worker": " "}]}, "jobs[0].worker", "blank"),
        ({"jobs": [{"worker": "a", "queue": "no queue"}]}, "jobs[0].queue", "not a queue name"),
        ({"jobs": [{"worker": "a", "priority": "1"}]}, "jobs[0].priority", "valid integer"),
        ({"jobs": [{"worker": "a", "priority": 10}]}, "jobs[0].priority", "must be 0 to 9"),
        ({"jobs": [{"worker": "a", "args": {"n": 2**70}}]}, "jobs[0].args.n", ""),
        ({"jobs": [{"worker": "a", "args": {"n": "\0"}}]}, "jobs[0].args.n", ""),
        ({"jobs": [{"worker": "a", "scheduled_at": "2024-03-09T22:17"}]}, "jobs[0].scheduled_at", "zone"),
        ({"jobs": [{"worker": "a", "schedule_in": 1e15}]}, "jobs[0].schedule_in", "9999"),
        ({"jobs": [{"worker": "a"}], "more": 1}, "more", "not permitted"),
        ([], "(body)", ""),
    ],
)
async def test_a_wrong_field_of_a_new_job_is_named(
    oban: Oban, api: ApiVisitor, body: Any, field: str, words: str
) -> None:
    problem = await api.tell("jobs", body, 422)
    assert field in {error["field"].replace('["', ".").replace('"]', "") for error in problem["errors"]}
    assert words in problem["detail"]
    assert await oban.list_jobs() == []


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("jobs/cancel", {}, "filter"),
        ("jobs/cancel", {"ids": [0]}, "ids[0]"),
        ("jobs/cancel", {"ids": [2**63]}, "ids[0]"),
        ("jobs/cancel", {"ids": ["1"]}, "ids[0]"),
        ("jobs/cancel", {"ids": [True]}, "ids[0]"),
        ("jobs/cancel", {"ids": [1], "all": True}, "all"),
        ("jobs/cancel", {"filter": {"state": ["done"]}}, "filter.state[0]"),
        ("jobs/cancel", {"filter": {"args": ["a..b"]}}, "args"),
        ("jobs/cancel", {"filter": {"queue": ["mail"]}, "cursor": "x"}, "cursor"),
        ("jobs/cancel", {"filter": {"queue": ["mail"]}, "cursor": "W10"}, "cursor"),
        ("jobs/update", {"ids": [1]}, "changes"),
        ("jobs/update", {"ids": [1], "changes": {}}, "changes"),
        ("jobs/update", {"ids": [1], "changes": {"state": "completed"}}, "changes.state"),
        ("queues/scale", {"queue": "mail"}, "limit"),
        ("queues/scale", {"queue": "mail", "limit": 0}, "limit"),
        ("queues/stop", {"queue": "*"}, "queue"),
        ("periodic", {"name": "a", "expression": "* *"}, "worker"),
    ],
)
async def test_a_wrong_field_of_a_change_is_named(api: ApiVisitor, path: str, body: Any, field: str) -> None:
    problem = await api.tell(path, body, 422)
    assert field in {error["field"] for error in problem["errors"]}, problem


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "1e9"},
        {"limit": ["1", "2"]},
        {"sort": "id"},
        {"order": "id"},
        {"older_than": "nan"},
        {"cursor": "x"},
        {"state": "done"},
        {"args": "="},
        {"queue": "\0"},
        {"q": "colour:red"},
    ],
)
async def test_a_wrong_parameter_is_named(api: ApiVisitor, query: dict[str, Any]) -> None:
    problem = await api.ask("jobs", 422, **query)
    assert problem["errors"][0]["field"].partition("[")[0] == next(iter(query))


async def test_a_cursor_of_another_filter_is_refused(oban: Oban, api: ApiVisitor) -> None:
    await oban.enqueue_many([Job(worker="app.Send") for _ in range(3)])
    cursor = (await api.ask("jobs", limit=1))["next_cursor"]
    for query in ({"queue": "mail"}, {"sort": "oldest"}):
        problem = await api.ask("jobs", 422, limit=1, cursor=cursor, **query)
        assert problem["errors"][0]["field"] == "cursor"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as JSON"),
        (b"{", "cannot be read as JSON"),
        (b'{"jobs": NaN}', "NaN is not JSON"),
        (b'{"jobs": 1e999}', "out of range"),
        (b'{"jobs": ' + b"9" * 5000 + b"}", "cannot be read as JSON"),
        (b'{"jobs": [], "jobs": []}', 'The key "jobs" is repeated'),
        (b'{"jobs": [{"worker": "a", "args": {"a": 1, "a": 2}}]}', 'The key "a" is repeated'),
        (b"[" * 200 + b"]" * 200, "nested too deeply"),
        (b"[" * 200_000, "nested too deeply"),
        (b'"\xff"', "not UTF-8"),
    ],
)
async def test_what_is_not_json_is_refused(oban: Oban, api: ApiVisitor, content: bytes, words: str) -> None:
    assert words in (await send(api, "jobs", content, 400))["detail"]
    assert await oban.list_jobs() == []


async def test_a_body_that_is_too_large_is_refused(api: ApiVisitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY", 1024)
    await send(api, "jobs", b"[" + b" " * 1024, 413)

    async def parts() -> AsyncIterator[bytes]:
        # Without a length in the headers.
        for _ in range(4):
            yield b" " * 400

    response = await api.http.post("/api/jobs", content=parts(), headers={"Content-Type": "application/json"})
    checked(response, "post", "jobs", 413)


async def test_unknown_addresses_and_methods_have_problem_documents(api: ApiVisitor) -> None:
    await api.ask("nothing", 404)
    await api.ask("jobs/seven", 404)
    await api.ask("jobs/99", 404)
    await api.ask(f"jobs/{2**63}", 404)
    await api.ask("jobs/" + "9" * 5000, 404)
    for method, path, allowed in (
        ("DELETE", "jobs/1", "GET, HEAD"),
        ("GET", "jobs/cancel", "POST"),
        ("PUT", "jobs", "GET, HEAD, POST"),
        ("OPTIONS", "jobs", "GET, HEAD, POST"),
    ):
        response = await api.http.request(method, f"/api/{path}", headers={"Origin": "http://evil.example"})
        assert checked(response, method.lower(), path, 405)["status"] == 405
        assert response.headers["allow"] == allowed
        assert not [name for name in response.headers if name.startswith("access-control-")]


FOREIGN: list[dict[str, str]] = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "https://localhost:8080"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_a_page_of_another_site_changes_nothing(
    oban: Oban, api: ApiVisitor, headers: dict[str, str]
) -> None:
    problem = await api.tell("jobs", NEW, 403, headers=headers)
    assert "Nothing was changed" in problem["detail"]
    assert await oban.list_jobs() == []


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "text/json"],
)
async def test_what_a_form_of_another_site_can_send_changes_nothing(
    oban: Oban, api: ApiVisitor, kind: str
) -> None:
    await send(api, "jobs", orjson.dumps(NEW), 415, kind=kind)
    assert await oban.list_jobs() == []


async def test_a_page_of_the_dashboard_and_a_program_can_change_something(api: ApiVisitor) -> None:
    own = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    await api.tell("jobs", NEW, 201, headers=own)
    await api.tell("jobs", NEW, 201)


@pytest.mark.parametrize("route", ACTIONS, ids=lambda route: route.path)
async def test_each_change_needs_its_permission(oban: Oban, route: ApiAction) -> None:
    [job] = await oban.enqueue_many([Job(worker="app.Send")])
    access = Access(user="ada", permissions=PERMISSIONS - {route.permission})
    app = dashboard(oban, authorize=lambda _: access)
    refused: list[DashboardRefused] = []
    oban.telemetry.attach(refused.append, DashboardRefused)
    async with ApiVisitor(app) as api:
        problem = await api.tell(route.path.removeprefix("/api/"), {"ids": [job.id]}, 403)
    assert route.permission in problem["detail"]
    assert [(each.user, each.action) for each in refused] == [("ada", route.permission)]
    [found] = await oban.list_jobs()
    assert found.state == "available"
    await app.aclose()


async def test_changes_are_told_to_the_audit_trail(oban: Oban, api: ApiVisitor) -> None:
    told: list[DashboardAction] = []
    oban.telemetry.attach(told.append, DashboardAction)
    await api.tell("jobs", NEW, 201)
    await api.tell("jobs/cancel", {"filter": {"args": ["token=secret"]}})
    await api.tell("jobs/cancel", {"all": True, "dry_run": True})
    await api.tell("queues/pause", {"queue": "mail"})
    await api.tell("periodic/pause", {"name": "nothing"}, 404)
    assert [(each.action, each.outcome, each.count, each.target) for each in told] == [
        ("enqueue_jobs", "done", 1, None),
        ("cancel_jobs", "done", 0, None),
        ("pause_queue", "done", 1, "mail"),
        ("manage_periodic", "failed", None, None),
    ]
    assert "secret" not in str(told)


async def test_the_filter_of_a_change_is_told_without_values_of_args_and_meta(
    oban: Oban, api: ApiVisitor
) -> None:
    told: list[DashboardAction] = []
    oban.telemetry.attach(told.append, DashboardAction)
    chosen = {
        "state": ["available", "scheduled"],
        "queue": ["two words"],
        "tag": ["vip", "eu"],
        "args": ["token.key=secret", '{"card": "secret"}', "path"],
        "older_than": 90,
        "node": "web-1",
        "q": "-worker:app.Send secret",
    }
    await api.tell("jobs/cancel", {"filter": chosen})
    assert told[0].filter == (
        'state:available,scheduled queue:"two words" tag:vip tag:eu node:web-1 args.token.key:… args.card:…'
        " args.path:… inserted:>90s -worker:app.Send …"
    )


class Pay(Worker[Any], name="api.pay", redact="card"):
    async def process(self, job: Any) -> None: ...


async def test_redacted_values_are_neither_shown_nor_found(oban: Oban, api: ApiVisitor) -> None:
    jobs = [
        {"worker": "api.pay", "args": {"card": "4111", "to": 7}},
        {"worker": "app.Send", "args": {"to": 7}},
    ]
    paid, sent = (await api.tell("jobs", {"jobs": jobs}, 201))["jobs"]
    assert "4111" not in str(paid)
    assert "4111" not in str(await api.ask("jobs")) + str(await api.ask(f"jobs/{paid['id']}"))
    assert (await api.ask("jobs", args="card=4111"))["jobs"] == []
    assert (await api.ask("counts", args="card=4111"))["counts"]["available"] == 0
    assert (await api.ask("jobs", q="args.card:4111"))["jobs"] == []
    assert (await api.ask("jobs", q="-args.card:4112"))["jobs"][0]["id"] == sent["id"]
    assert [job["id"] for job in (await api.ask("jobs", args="to=7"))["jobs"]] == [sent["id"]]


async def test_hidden_fields_are_neither_shown_nor_found_nor_replaced(oban: Oban) -> None:
    access = Access(user="ada", permissions=PERMISSIONS, hidden=["args", "meta", "errors"])
    job = await oban.enqueue(Job(worker="app.Send", args={"to": "secret"}, meta={"of": "secret"}))
    app = dashboard(oban, authorize=lambda _: access)
    async with ApiVisitor(app) as api:
        entry = {"name": "nightly", "expression": "@daily", "worker": "app.Send"}
        await api.tell("periodic", entry, 201)
        await oban.update_periodic("nightly", args={"to": "secret"})
        for path in ("jobs", f"jobs/{job.id}", "periodic"):
            assert "secret" not in str(await api.ask(path))
        for name in ("args", "meta"):
            await api.ask("jobs", 403, **{name: "to=secret"})
            await api.ask("counts", 403, **{name: "to=secret"})
            await api.ask("jobs", 403, q=f"{name}.to:secret")
            await api.tell("jobs/delete", {"filter": {name: ["to=secret"]}, "dry_run": True}, 403)
            await api.tell("jobs/update", {"ids": [job.id], "changes": {name: {}}}, 403)
            await api.tell("periodic", {**entry, name: {}}, 403)
    await app.aclose()


async def test_an_error_that_nobody_expects_is_a_problem_without_details(
    api: ApiVisitor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("oban.web.api.instance.DatabaseOperations", fail)
    with caplog.at_level(logging.ERROR, "oban.web"):
        response = await api.http.get("/api/nodes")
    assert "secret" not in str(checked(response, "get", "nodes", 500))
    assert response.headers["content-type"] == MEDIA_TYPE
    assert "a secret" in caplog.text


async def test_a_database_that_is_too_slow_is_a_problem(
    api: ApiVisitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise TimeoutError

    monkeypatch.setattr("oban.web.api.instance.DatabaseOperations", fail)
    response = await api.http.get("/api/nodes")
    assert "Try again" in checked(response, "get", "nodes", 503)["detail"]
    assert response.headers["retry-after"] == "1"


@pytest.mark.either_database
async def test_who_may_not_see_the_dashboard_gets_a_problem(oban: Oban) -> None:
    app = dashboard(oban, authorize=lambda _: None)
    async with ApiVisitor(app) as api:
        assert "may not see" in (await api.ask("jobs", 403))["detail"]
        assert "may not see" in (await api.tell("jobs", NEW, 403))["detail"]
    await app.aclose()
