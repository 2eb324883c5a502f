"""Every response has the headers that browsers protect users by: the rules of Mozilla's HTTP Observatory."""

import re
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
from sqlalchemy import URL

from oban import Job, Oban
from oban.web import Access, Dashboard, dashboard
from oban.web.limits import MAX_BODY, MAX_QUERY
from tests.support.web import ORIGIN, Visitor
from tests.support.web_routes import ACTIONS, address, pages

Headers = httpx2.Headers


def policy(headers: Headers) -> dict[str, list[str]]:
    parts = [part.split() for part in headers["content-security-policy"].split(";")]
    return {name: values for name, *values in parts}


#: What each rule is for, and whether the headers of a response keep it.
RULES: dict[str, Callable[[Headers], bool]] = {
    # Text from a job that got into a page as markup could not run anything.
    "scripts come from this origin only, never from the page": lambda h: (
        policy(h)["script-src"] == ["'self'"] and policy(h)["default-src"] == ["'none'"]
    ),
    # Styles can read the content of a page, by selectors that load images.
    "styles come from this origin only": lambda h: policy(h)["style-src"] == ["'self'"],
    "nothing is unsafe, a wildcard, or from another origin": lambda h: (
        not re.search(r"unsafe|\*|https?:|data:|blob:", h["content-security-policy"])
    ),
    # A page of another site could show the dashboard in a frame below its own buttons.
    "no site can show it in a frame": lambda h: (
        policy(h)["frame-ancestors"] == ["'none'"] and h["x-frame-options"] == "DENY"
    ),
    # `<base>` would lead links and scripts elsewhere, and a form would send its token there.
    "markup cannot lead links and forms elsewhere": lambda h: (
        policy(h)["base-uri"] == ["'none'"] and policy(h)["form-action"] == ["'self'"]
    ),
    # A text that a browser took for a script would run.
    "types are not guessed": lambda h: h["x-content-type-options"] == "nosniff",
    # Addresses have filters, which may have names of customers.
    "other sites do not get addresses": lambda h: h["referrer-policy"] in ("same-origin", "no-referrer"),
    # Pages of other sites cannot load it as an image or a script, nor keep a handle to its window.
    "other origins cannot load it": lambda h: (
        h["cross-origin-resource-policy"] == "same-origin"
        and h["cross-origin-opener-policy"] == "same-origin"
    ),
    "other origins cannot read it": lambda h: "access-control-allow-origin" not in h,
    # Shared computers and proxies keep no pages; the static files are those of the package.
    "pages are not kept": lambda h: h["cache-control"].split(",")[0] in ("no-store", "max-age=31536000"),
    # Without it, the first request could be read and changed on the way.
    "https stays https for a year": lambda h: (
        int(h["strict-transport-security"].partition("max-age=")[2].partition(";")[0]) >= 31_536_000
    ),
    "cookies are for this path, this site, https and no script": lambda h: all(
        all(part in cookie.lower() for part in ("path=/", "samesite=strict", "secure", "httponly"))
        for cookie in h.get_list("set-cookie")
    ),
    "no program and no version is told": lambda h: "server" not in h and "x-powered-by" not in h,
}


@pytest.fixture
def url(sqlite_url: URL) -> URL:
    """A database on SQLite, as headers do not depend on it."""
    return sqlite_url


@pytest.fixture
async def secure(app: Dashboard) -> AsyncIterator[Visitor]:
    """A visitor by HTTPS."""

    async def by_https(scope: dict[str, object], receive: object, send: object) -> None:
        await app({**scope, "scheme": "https"}, receive, send)  # type: ignore[arg-type]

    async with Visitor(by_https) as made:  # type: ignore[arg-type]
        yield made


def broken_rules(response: httpx2.Response) -> list[str]:
    return [rule for rule, keeps in RULES.items() if not keeps(response.headers)]


@pytest.mark.parametrize(
    "path", [*pages(), "/none", "/jobs/999999", "/static/app.css", "/static/none", "/static/"]
)
async def test_every_page_has_the_headers(oban: Oban, secure: Visitor, path: str) -> None:
    await oban.enqueue(Job(worker="app.Send"))
    for method in ("GET", "HEAD", "OPTIONS", "TRACE"):
        response = await secure.http.request(method, path)
        assert broken_rules(response) == [], method
        assert response.status_code < 500


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.path)
async def test_every_action_and_every_refusal_has_the_headers(
    oban: Oban, secure: Visitor, action: object
) -> None:
    await oban.enqueue(Job(worker="app.Send"))
    path = address(action.path)  # type: ignore[attr-defined]
    refused = await secure.http.post(path)
    done = await secure.post(path)
    assert (broken_rules(refused), broken_rules(done)) == ([], [])
    assert refused.status_code == 403


async def test_errors_before_any_page_have_the_headers(oban: Oban) -> None:
    def fail(request: object) -> Access:
        raise RuntimeError

    async with Visitor(dashboard(oban, authorize=fail)) as visitor:
        failed = await visitor.get("/")
    async with Visitor(dashboard(oban)) as visitor:
        long = await visitor.get(f"/jobs?q={'a' * MAX_QUERY}")
        token = {"X-CSRF-Token": await visitor.token(), "Origin": ORIGIN}
        announced = await visitor.http.post(
            "/jobs/1/cancel", headers={**token, "Content-Length": str(MAX_BODY + 1)}, content=b""
        )

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"a" * 1024 * 1024

        kind = {"Content-Type": "application/x-www-form-urlencoded", "Origin": ORIGIN}
        sent = await visitor.http.post("/jobs/1/cancel", headers=kind, content=endless())
    statuses = [failed.status_code, long.status_code, announced.status_code, sent.status_code]
    assert statuses == [500, 414, 413, 413]
    for response in (failed, long, announced, sent):
        assert broken_rules_over_http(response) == []


def broken_rules_over_http(response: httpx2.Response) -> list[str]:
    own = {rule: keeps for rule, keeps in RULES.items() if "https" not in rule}
    return [rule for rule, keeps in own.items() if not keeps(response.headers)]


@pytest.mark.parametrize(
    "path",
    ["../app.py", "%2e%2e/app.py", "..%2fapp.py", "/etc/passwd", "%00", "vendor/../../app.py", "C:app.py"],
)
async def test_static_files_are_those_of_the_folder_only(visitor: Visitor, path: str) -> None:
    response = await visitor.get(f"/static/{path}")
    assert response.status_code in (400, 404)
    assert "import" not in response.text


async def test_static_files_have_their_type_and_are_kept_until_they_change(visitor: Visitor) -> None:
    page = await visitor.page("/queues")
    tags = [*page.css("script[src]"), *page.css("link[href]")]
    addresses = {str(tag.attributes.get("src") or tag.attributes.get("href")) for tag in tags}
    assert len(addresses) >= 4
    for found in addresses:
        assert re.search(r"\?v=[0-9a-f]{12}$", found)
        response = await visitor.get(found)
        assert response.headers["cache-control"] == "max-age=31536000, immutable"
        kind = response.headers["content-type"].partition(";")[0]
        assert kind in ("text/css", "text/javascript", "image/svg+xml", "application/json", "image/png")


async def test_a_message_is_shown_once(oban: Oban, visitor: Visitor) -> None:
    await oban.enqueue(Job(worker="app.Send"))
    response = await visitor.post("/jobs/1/cancel")
    assert response.status_code == 303
    assert "oban_flash" in visitor.http.cookies
    page = await visitor.page("/queues")
    assert page.css_first("[role=status]") is not None
    assert "oban_flash" not in visitor.http.cookies
