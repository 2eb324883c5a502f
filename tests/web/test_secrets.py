"""Redacted values, hidden fields and passwords are on no page, in no record of the log, and in no event."""

import logging
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
from sqlalchemy import URL

from oban import Job, Oban, telemetry
from oban.telemetry import DashboardEvent
from oban.web import Access, dashboard
from oban.web.audit import without_values
from tests.support.rows import insert_rows, row
from tests.support.telemetry import Recorder
from tests.support.web import Visitor
from tests.support.web_routes import ACTIONS, address, pages

CANARY = "canary-4711"
STATES = ("available", "scheduled", "executing", "retryable", "completed", "discarded", "cancelled")
JOBS = [f"/jobs/{number}" for number in range(1, len(STATES) + 1)]
SEARCHES = [
    "/jobs?q=app",
    "/jobs?state=discarded",
    "/jobs/suggest?q=args.",
    "/jobs/suggest?q=meta.",
    "/palette?q=a",
]
#: More addresses of a job that show its fields.
DOCUMENTS = [f"/jobs/5/{name}.json" for name in ("args", "meta", "recorded", "errors")]
API = ["/api/jobs", "/api/jobs/5", "/api/jobs/6"]
ALL = [*pages(), *JOBS, *SEARCHES, *DOCUMENTS, *API]


@pytest.fixture
def url(sqlite_url: URL) -> URL:
    """A database on SQLite, as what is shown does not depend on it."""
    return sqlite_url


@pytest.fixture
def events() -> Iterator[Recorder]:
    recorder = Recorder()
    detach = telemetry.attach(recorder, DashboardEvent)
    yield recorder
    detach()


def jobs(**meta: Any) -> list[dict[str, Any]]:
    error = {"at": "2024-03-09T22:15:30.123456Z", "attempt": 1, "error": f"ValueError: {CANARY}"}
    return [
        row(
            state,
            worker="app.Pay",
            queue="default",
            args={"card": CANARY},
            meta={"card": CANARY, "recorded": {"card": CANARY}, **meta},
            errors=[error],
        )
        for state in STATES
    ]


async def shown(visitor: Visitor) -> list[str]:
    """The addresses whose answers have the secret."""
    found = []
    for path in ALL:
        response = await visitor.get(path)
        assert response.status_code < 500, path
        if CANARY in response.text or CANARY in str(response.headers):
            found.append(path)
    return found


async def test_redacted_values_are_on_no_page(oban: Oban, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="oban")
    await insert_rows(oban.engine, *jobs(redact=["card", "recorded"]))
    app = dashboard(oban)
    async with Visitor(app) as visitor:
        assert await shown(visitor) == []
    assert CANARY not in caplog.text
    await app.aclose()


async def test_hidden_fields_are_on_no_page(oban: Oban, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="oban")
    await insert_rows(oban.engine, *jobs())
    hidden = ["args", "meta", "errors", "recorded", "log"]
    app = dashboard(oban, authorize=lambda request: Access(user="eve", hidden=hidden))
    async with Visitor(app) as visitor:
        assert await shown(visitor) == []
    everything = dashboard(oban)
    async with Visitor(everything) as visitor:
        # The check finds what is not hidden.
        assert set(JOBS) <= set(await shown(visitor))
    assert CANARY not in caplog.text
    await app.aclose()
    await everything.aclose()


@pytest.mark.parametrize(
    "query", [f"args.card:{CANARY}", f'meta.card:"{CANARY}"', "args.card:x", "meta.card:x"]
)
async def test_a_hidden_field_cannot_be_searched_in(oban: Oban, query: str) -> None:
    await insert_rows(oban.engine, *jobs())
    app = dashboard(oban, authorize=lambda request: Access(user="eve", hidden=["args", "meta"]))
    async with Visitor(app) as visitor:
        response = await visitor.get("/jobs", params={"q": query})
        # Neither the jobs nor their number tell whether there is such a value.
        assert "/jobs/1" not in response.text
        assert response.status_code in (200, 400, 403)
        other = await visitor.get("/jobs", params={"q": query.replace(CANARY, "other-4711")})
        assert other.text.replace("other-4711", CANARY) == response.text
    await app.aclose()


async def test_events_and_records_have_no_values(
    oban: Oban, events: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="oban")
    await insert_rows(oban.engine, *jobs())
    app = dashboard(oban)
    form = {"q": f"args.card:{CANARY}", "filter": f"args.card:{CANARY}", "args": f'{{"card": "{CANARY}"}}'}
    async with Visitor(app) as visitor:
        for action in ACTIONS:
            response = await visitor.post(address(action.path), form)
            assert response.status_code < 500, action.path
    assert len(events.events) >= len(ACTIONS)
    assert not [event for event in events.events if CANARY in str(asdict(event))]
    assert CANARY not in caplog.text
    await app.aclose()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("state:available args.card:secret", "state:available args.card:…"),
        ('args.card:"a secret" queue:mail', "args.card:… queue:mail"),
        ('args."a key".b:secret', 'args."a key".b:…'),
        ("-meta.a.b:secret,other", "-meta.a.b:…"),
        ("worker:app.Send tag:vip", "worker:app.Send tag:vip"),
        ('secret -"another secret" queue:mail', "… -… queue:mail"),
        ('args.card:"never closed', "…"),
        ("nonsense:secret", "…"),
    ],
)
def test_a_filter_is_told_without_values_of_args_and_meta(text: str, expected: str) -> None:
    assert without_values(text) == expected


async def test_the_password_of_the_database_is_on_no_page(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="oban")
    app = dashboard(Oban(f"postgresql+asyncpg://user:{CANARY}@127.0.0.1:1/none"))
    async with Visitor(app) as visitor:
        for path in ("/", "/jobs", "/jobs/1", "/queues", "/api/jobs"):
            response = await visitor.get(path)
            assert CANARY not in response.text
    assert CANARY not in caplog.text
    await app.aclose()


async def test_an_error_that_nobody_has_foreseen_is_in_the_log_and_not_on_the_page(
    oban: Oban, caplog: pytest.LogCaptureFixture
) -> None:
    app = dashboard(oban)

    async def fail(*_: object) -> Job:
        raise KeyError(CANARY)

    app.instances[0].oban.get_job = fail  # type: ignore[method-assign,assignment]
    async with Visitor(app) as visitor:
        response = await visitor.get("/jobs/1")
    assert response.status_code == 500
    assert CANARY not in response.text
    assert len([record for record in caplog.records if record.exc_info]) == 1
    await app.aclose()
