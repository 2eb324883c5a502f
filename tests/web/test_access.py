"""Who gets in and what changes something: every route with every kind of request."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
from selectolax.lexbor import LexborHTMLParser
from sqlalchemy import URL
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse

from oban import Job, Oban, telemetry
from oban.telemetry import DashboardAction, DashboardEvent, DashboardRefused
from oban.web import Access, Dashboard, dashboard
from oban.web.access import PERMISSIONS
from oban.web.routing import Action
from tests.support.telemetry import Recorder
from tests.support.web import ORIGIN, Visitor
from tests.support.web_routes import ACTIONS, PAGES, address, dump, pages

TOKEN = "t" * 43
SAME = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}

#: What is wrong with a request: its headers, and the tokens of its cookie and of its form.
WRONG: dict[str, tuple[dict[str, str], str | None, str | None]] = {
    "no token": (SAME, TOKEN, None),
    "another token": (SAME, TOKEN, "u" * 43),
    "a token that is not ASCII": (SAME, TOKEN, "ü" * 43),
    "no cookie": (SAME, None, TOKEN),
    "an empty cookie and an empty token": (SAME, "", ""),
    "a foreign Origin": ({"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, TOKEN, TOKEN),
    "a foreign Origin alone": ({"Origin": "https://evil.example"}, TOKEN, TOKEN),
    "a foreign Origin that says it is the same": ({**SAME, "Origin": "http://evil.example"}, TOKEN, TOKEN),
    "another port": ({"Origin": f"{ORIGIN}:81"}, TOKEN, TOKEN),
    "an opaque Origin": ({"Origin": "null"}, TOKEN, TOKEN),
    "a broken Origin": ({"Origin": "http://[::1"}, TOKEN, TOKEN),
    "an Origin that is empty": ({"Origin": ""}, TOKEN, TOKEN),
    "the same site only": ({**SAME, "Sec-Fetch-Site": "same-site"}, TOKEN, TOKEN),
    "no site": ({"Sec-Fetch-Site": "none"}, TOKEN, TOKEN),
    "no header": ({}, TOKEN, TOKEN),
}


@pytest.fixture
def url(sqlite_url: URL) -> URL:
    """A database on SQLite, as access does not depend on it."""
    return sqlite_url


@pytest.fixture
async def job(oban: Oban) -> Job:
    """The job that all addresses name."""
    return await oban.enqueue(Job(worker="app.Send", args={"n": 1}))


@pytest.fixture
def events() -> Any:
    recorder = Recorder()
    detach = telemetry.attach(recorder, DashboardEvent)
    yield recorder
    detach()


async def post(
    visitor: Visitor, path: str, headers: dict[str, str], cookie: str | None, token: str | None
) -> httpx2.Response:
    own = {**headers, **({} if cookie is None else {"Cookie": f"oban_csrf={cookie}"})}
    return await visitor.http.post(path, data={} if token is None else {"csrf_token": token}, headers=own)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.path)
async def test_a_wrong_request_changes_nothing_and_is_told(
    oban: Oban, job: Job, app: Dashboard, url: URL, action: Action, events: Recorder
) -> None:
    path, before = address(action.path), dump(url)
    async with Visitor(app) as visitor:
        for name, (headers, cookie, token) in WRONG.items():
            response = await post(visitor, path, headers, cookie, token)
            assert response.status_code == 403, name
            assert dump(url) == before, name
        for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
            response = await visitor.http.request(method, path, headers=SAME)
            assert dump(url) == before, method
            assert response.status_code in (200, 400, 404, 405), method
    refused = events.of(DashboardRefused)
    assert len(refused) == len(WRONG)
    assert {(event.user, event.action, event.path) for event in refused} == {
        ("local", action.permission, path)
    }
    assert events.of(DashboardAction) == []


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.path)
async def test_a_user_without_the_permission_changes_nothing_and_is_told(
    oban: Oban, job: Job, url: URL, action: Action, events: Recorder
) -> None:
    others = PERMISSIONS - {action.permission}
    app = dashboard(oban, authorize=lambda request: Access(user="eve", permissions=others))
    before, path = dump(url), address(action.path)
    async with Visitor(app) as visitor:
        response = await post(visitor, path, SAME, TOKEN, TOKEN)
    assert response.status_code == 403
    assert dump(url) == before
    (event,) = events.of(DashboardRefused)
    assert (event.user, event.action, event.path, event.client) == (
        "eve",
        action.permission,
        path,
        "127.0.0.1",
    )
    await app.aclose()


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.path)
async def test_a_right_request_is_let_through_and_told(
    oban: Oban, job: Job, action: Action, events: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="oban.web")
    access = Access(user="ada", permissions=[action.permission])
    app = dashboard(oban, authorize=lambda request: access)
    async with Visitor(app) as visitor:
        response = await post(visitor, address(action.path), SAME, TOKEN, TOKEN)
    # The action may ask for an entry that the address does not name.
    assert response.status_code not in (403, 405, 500, 503), response.text
    assert events.of(DashboardRefused) == []
    told = events.of(DashboardAction)
    assert {event.user for event in told} == {"ada"}
    assert [record.name for record in caplog.records if "'ada' has sent" in record.getMessage()]
    await app.aclose()


@pytest.mark.parametrize("path", [*pages(), *(address(action.path) for action in ACTIONS), "/static/app.css"])
async def test_nobody_gets_in_from_elsewhere_without_authorize(
    oban: Oban, job: Job, app: Dashboard, url: URL, path: str
) -> None:
    before = dump(url)
    async with Visitor(app, client="203.0.113.7") as visitor:
        for response in (await visitor.get(path), await post(visitor, path, SAME, TOKEN, TOKEN)):
            assert response.status_code == 403
            assert "authorize" in response.text
    assert dump(url) == before


@pytest.mark.parametrize(
    "headers",
    [
        *({name: "203.0.113.7"} for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via")),
        *({"Host": host} for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example")),
        *(
            {"Host": host}
            for host in ("", "0.0.0.0", "evil.example:80@localhost", "localhost/", "[::1", "2130706433")
        ),
    ],
)
async def test_a_proxy_or_another_host_name_is_not_this_machine(
    app: Dashboard, headers: dict[str, str]
) -> None:
    async with Visitor(app) as visitor:
        response = await visitor.get("/", headers=headers)
    assert response.status_code == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"])
async def test_this_machine_has_several_names(app: Dashboard, host: str) -> None:
    for client in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        async with Visitor(app, client=client) as visitor:
            assert (await visitor.get("/queues", headers={"Host": host})).status_code == 200


async def test_a_unix_socket_does_not_tell_who_asks(app: Dashboard) -> None:
    async def without_client(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "client": None}, receive, send)

    async with Visitor(without_client) as visitor:
        response = await visitor.get("/")
    assert response.status_code == 403
    assert "Unix socket" in response.text


def broken(request: HTTPConnection) -> Access:
    raise RuntimeError("canary of the application")


async def slow(request: HTTPConnection) -> Access | None:
    await asyncio.sleep(0)
    return None


def forbidden(request: HTTPConnection) -> Access:
    raise HTTPException(401, "canary of the application", {"WWW-Authenticate": "Bearer"})


@pytest.mark.parametrize(
    ("authorize", "status"),
    [
        (lambda request: None, 403),
        (slow, 403),
        (forbidden, 401),
        (broken, 500),
        (lambda request: True, 500),
        (lambda request: "ada", 500),
        (lambda request: {"user": "ada"}, 500),
        (lambda request: Access, 500),
        (lambda: None, 500),
        (lambda request: RedirectResponse("/login"), 307),
    ],
)
async def test_anything_but_an_access_lets_nobody_in(
    oban: Oban, job: Job, url: URL, authorize: Callable[..., Any], status: int, events: Recorder
) -> None:
    app, before = dashboard(oban, authorize=authorize), dump(url)
    async with Visitor(app) as visitor:
        for route in PAGES:
            response = await visitor.get(address(route.path), follow_redirects=False)
            assert response.status_code == status
            assert "canary" not in response.text
            assert "oban_csrf" not in response.cookies
        for action in ACTIONS:
            response = await post(visitor, address(action.path), SAME, TOKEN, TOKEN)
            assert response.status_code == status
    assert dump(url) == before
    assert len(events.of(DashboardRefused)) == len(PAGES) + len(ACTIONS)


async def test_an_async_function_can_let_in(oban: Oban) -> None:
    async def authorize(request: HTTPConnection) -> Access:
        await asyncio.sleep(0)
        return Access.read_only("ada")

    app = dashboard(oban, authorize=authorize)
    async with Visitor(app, client="203.0.113.7") as visitor:
        assert "ada" in (await visitor.get("/queues")).text
    await app.aclose()


async def test_a_websocket_is_closed(app: Dashboard) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "websocket", "path": "/", "headers": [], "query_string": b""}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


@pytest.fixture
async def outside(oban: Oban) -> AsyncIterator[Visitor]:
    """A visitor at another host name, through a proxy that serves the dashboard at /ops by HTTPS."""
    app = dashboard(oban, authorize=lambda request: Access.full("ada"))

    async def served(scope: Any, receive: Any, send: Any) -> None:
        path = f"/ops{scope['path']}"
        await app({**scope, "scheme": "https", "root_path": "/ops", "path": path}, receive, send)

    async with Visitor(served, client="203.0.113.7") as visitor:
        visitor.http.headers["Host"] = "jobs.example"
        yield visitor
    await app.aclose()


async def test_a_proxy_with_another_host_name_and_path_works(oban: Oban, job: Job, outside: Visitor) -> None:
    page = await outside.get("/queues")
    attributes = [each.attributes for each in LexborHTMLParser(page.text).css("[href], [src], [action]")]
    links = [str(each.get(name)) for each in attributes for name in ("href", "src", "action") if name in each]
    assert links
    assert [link for link in links if not link.startswith(("/ops/", "#"))] == []
    cookie = page.headers["set-cookie"].lower()
    for part in ("path=/ops/", "httponly", "samesite=strict", "secure"):
        assert part in cookie
    headers = {"Origin": "https://jobs.example", "Sec-Fetch-Site": "same-origin"}
    token = page.headers["set-cookie"].partition("oban_csrf=")[2][:43]
    response = await post(outside, "/jobs/1/cancel", headers, token, token)
    assert response.status_code == 303
    assert response.headers["location"].startswith("/ops/")
    assert (await oban.get_job(1)).state == "cancelled"  # type: ignore[union-attr]
