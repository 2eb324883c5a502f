"""Whatever the rows of jobs, queues and nodes contain, pages show it as text."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import urlencode, urljoin, urlsplit
from uuid import uuid4

import pytest
from selectolax.lexbor import LexborHTMLParser, LexborNode
from sqlalchemy import URL, insert
from sqlalchemy.ext.asyncio import AsyncEngine

from oban import Job, Oban
from oban.models import Attempt, Leader, PeriodicEntry, Producer, Queue
from oban.web import Dashboard
from tests.support.payloads import MARK, PAYLOADS
from tests.support.rows import insert_rows, row
from tests.support.web import Visitor
from tests.support.web_routes import pages

NOW = datetime.now(UTC)
#: Attributes that lead somewhere, and what they may begin with.
LINKS = (
    "href",
    "src",
    "action",
    "formaction",
    "xlink:href",
    "data",
    "poster",
    "hx-get",
    "hx-post",
    "sse-connect",
)
FORBIDDEN = {"iframe", "object", "embed", "base", "style", "math", "foreignobject", "animate", "video", "img"}
#: Parameters of addresses, of which a page shows some again.
PARAMETERS = (
    "q",
    "queue",
    "node",
    "worker",
    "state",
    "sort",
    "after",
    "before",
    "page",
    "text",
    "name",
    "entry",
)
#: How many pages that other pages link to are visited.
LINKED = 30


@pytest.fixture
def url(sqlite_url: URL) -> URL:
    """A database on SQLite, which stores anything."""
    return sqlite_url


def jobs() -> Iterator[dict[str, object]]:
    for number, text in enumerate(PAYLOADS):
        error = {"at": "2024-03-09T22:15:30.123456Z", "attempt": 1, "error": f"{text}\n{text}"}
        yield row(
            ("retryable", "discarded", "executing", "available", "scheduled", "completed")[number % 6],
            queue=text,
            worker=text,
            tags=[text],
            args={text: text, "list": [text, {"html": text}]},
            meta={
                text: [text],
                "recorded": text,
                "trace": text,
                "unique": text,
                "cron": text,
                "periodic": text,
            },
            errors=[error],
            attempted_by=[text, text],
        )


async def fill(engine: AsyncEngine) -> None:
    """Rows that any program could have written."""
    ids = await insert_rows(engine, *jobs())
    async with engine.begin() as connection:
        for id_, text in zip(ids, PAYLOADS, strict=True):
            log = [{"at": NOW.isoformat(), "level": text, "message": text, "text": text}]
            attempt = {"job_id": id_, "attempt": 1, "outcome": text, "node": text, "producer": text}
            progress = {"done": 1, "total": 2, "message": text, "text": text}
            at = {"started_at": NOW, "ended_at": NOW}
            values = {**attempt, **at, "error": text, "log": log, "progress": progress, "trace": text}
            await connection.execute(insert(Attempt).values(**values))
            producer = {
                "uuid": uuid4(),
                "name": "Oban",
                "node": text,
                "queue": text,
                "meta": {"version": text},
            }
            await connection.execute(insert(Producer).values(**producer, started_at=NOW, updated_at=NOW))
            queue = {"name": "Oban", "queue": text, "node": text, "paused": True, "limit": 1, "running": True}
            await connection.execute(insert(Queue).values(**queue))
            declared = {"worker": text, "cron": text, "timezone": text, "args": {text: text}, "queue": text}
            entry = {"name": "Oban", "entry": text, "declared": declared, "source": text, "paused": False}
            times = {"declared_at": NOW, "seen_at": NOW, "updated_at": NOW}
            await connection.execute(insert(PeriodicEntry).values(**entry, **times))
        leader = {"name": "Oban", "node": PAYLOADS[0], "elected_at": NOW, "expires_at": NOW}
        await connection.execute(insert(Leader).values(**leader))


def problems(html: str) -> list[str]:
    """What is on a page that no template has put there."""
    found = []
    tree = LexborHTMLParser(html)
    for node in tree.css("*"):
        tag = node.tag or ""
        if tag in FORBIDDEN or MARK in tag:
            found.append(f"the element {tag}")
        if tag == "script" and (not str(node.attributes.get("src")).startswith("/static/") or node.text()):
            found.append(f"a script: {(node.html or '')[:200]}")
        if tag == "meta" and "http-equiv" in node.attributes:
            found.append("a meta element with http-equiv")
        found += [f"{tag}: {problem}" for problem in _attributes(node)]
    return found


def _attributes(node: LexborNode) -> Iterator[str]:
    for name, value in node.attributes.items():
        if MARK in name or name.startswith(("on", "hx-on", "data-hx-on")) or name == "style":
            yield f"the attribute {name}"
        if name in LINKS:
            target = urlsplit(urljoin("http://localhost/", (value or "").strip()))
            if (target.scheme, target.netloc) != ("http", "localhost"):
                yield f"{name}={value!r}"


def links(html: str) -> set[str]:
    """The pages of the dashboard that a page links to."""
    nodes = LexborHTMLParser(html).css("a[href]")
    found = {urljoin("http://localhost/", str(node.attributes["href"])) for node in nodes}
    return {link.removeprefix("http://localhost") for link in found if link.startswith("http://localhost/")}


async def test_no_text_of_a_row_becomes_markup_on_any_page(
    oban: Oban, app: Dashboard, visitor: Visitor
) -> None:
    await fill(oban.engine)
    first = [*pages(), *(f"/jobs/{number}" for number in range(1, len(PAYLOADS) + 1))]
    waiting, seen, marked = list(first), set(first), 0
    found: dict[str, list[str]] = {}
    statuses: dict[str, int] = {}
    while waiting and len(statuses) < len(first) + LINKED:
        path = waiting.pop(0)
        response = await visitor.get(path)
        statuses[path] = response.status_code
        assert "script-src 'self';" in response.headers["content-security-policy"]
        if not response.headers.get("content-type", "").startswith("text/html"):
            continue
        marked += MARK in response.text
        if wrong := problems(response.text):
            found[path] = wrong[:3]
        new = sorted(links(response.text) - seen)
        seen.update(new)
        waiting += new
    assert found == {}
    assert {path: status for path, status in statuses.items() if status >= 500} == {}
    # The pages do show these texts.
    assert marked > len(PAYLOADS)


@pytest.mark.parametrize(("number", "path"), [*enumerate(pages())])
async def test_no_text_of_an_address_becomes_markup(
    visitor: Visitor, oban: Oban, number: int, path: str
) -> None:
    await oban.enqueue(Job(worker="app.Send"))
    found, failed = {}, {}
    # A part of them on each page, as all pages of a parameter show it with the same macros.
    for text in PAYLOADS[number % 4 :: 4]:
        response = await visitor.get(f"{path}?{urlencode(dict.fromkeys(PARAMETERS, text))}")
        if response.headers.get("content-type", "").startswith("text/html") and problems(response.text):
            found[text] = problems(response.text)
        if response.status_code >= 500:
            failed[text] = response.text[-300:]
    assert (found, failed) == ({}, {})


@pytest.mark.parametrize("first", range(0, 50, 10))
async def test_no_text_of_a_path_or_of_a_cookie_becomes_markup(visitor: Visitor, first: int) -> None:
    for text in PAYLOADS[first : first + 10]:
        await visit_with(visitor, text)


async def visit_with(visitor: Visitor, text: str) -> None:
    cookies = {
        "Cookie": f"oban_flash=done%3A{urlencode({'': text})[1:]}; oban_csrf={re.sub(r'[^ -~]', '', text)}"
    }
    paths = [f"/{urlencode({'': text})[1:]}", f"/queues/{urlencode({'': text})[1:]}", "/queues"]
    for path in paths:
        response = await visitor.get(path, headers=cookies)
        assert problems(response.text) == []
        assert response.status_code in (200, 404)


def test_the_checks_find_what_they_look_for() -> None:
    found = [text for text in PAYLOADS if problems(f"<main title='x'>{text}</main>")]
    # The rest is text where no attribute or link is.
    assert len(found) > 30
    assert problems('<a href="javascript:x()">') == ["a: href='javascript:x()'"]
    assert problems('<a href="//evil.example/">') == ["a: href='//evil.example/'"]
