"""The snippets of `docs/guides/dashboard.md` work, and the events that it describes are sent."""

import re
from typing import Any

import pytest
from sqlalchemy import URL
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse

from oban import Job, Oban
from oban.job_search.language import parse
from oban.web import Access, dashboard
from tests.docs.snippets import fenced
from tests.docs.stage import Page, Snippet, Stage
from tests.support.processes import ROOT
from tests.support.web import Visitor

PAGE = Page("guides/dashboard.md")
SEARCHES = (ROOT / "docs/guides/dashboard_pages.md").read_text()


class User:
    """A user of an application."""

    def __init__(self, name: str, *, is_admin: bool = False, is_support: bool = False) -> None:
        self.name, self.is_admin, self.is_support = name, is_admin, is_support


@pytest.fixture
def url(sqlite_url: URL) -> URL:
    """A database on SQLite: the snippets do not depend on it."""
    return sqlite_url


@pytest.fixture
def stage(oban: Oban) -> Stage:
    stage = Stage(oban)
    stage.names["authorize"] = lambda request: Access.read_only("ada")
    return stage


@PAGE.shows("app.mount(")
async def test_one_line_mounts_the_dashboard(stage: Stage, snippet: Snippet) -> None:
    app = stage.names["app"] = Starlette()
    await stage.run(snippet)
    async with Visitor(app, base="/oban") as visitor:
        assert "ada" in (await visitor.page("/queues")).text()
    await app.routes[0].app.aclose()  # type: ignore[attr-defined]


@PAGE.shows("user.is_support")
async def test_the_users_of_the_application_may_do_what_it_decides(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)

    def decided(user: User | None) -> Any:
        return stage.names["authorize"](HTTPConnection({"type": "http", "user": user}))

    login = decided(None)
    assert isinstance(login, RedirectResponse)
    assert login.headers["location"] == "/login"
    assert decided(User("ada", is_admin=True)) == Access.full("ada")
    support = Access(user="bob", permissions=["retry_jobs", "cancel_jobs"], hidden=["args", "meta"])
    assert decided(User("bob", is_support=True)) == support
    assert decided(User("eve")) is None


@PAGE.shows("ADAS_PASSWORD")
async def test_a_name_and_a_password_let_in(
    stage: Stage, snippet: Snippet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAS_PASSWORD", "correct horse")
    await stage.run(snippet)
    app = dashboard(stage.oban, authorize=stage.names["authorize"])
    async with Visitor(app) as visitor:
        assert (await visitor.get("/queues")).status_code == 401
        response = await visitor.http.get("/queues", auth=("ada", "correct horse"))
        assert (response.status_code, "ada" in response.text) == (200, True)
    await app.aclose()


@PAGE.shows("async def lifespan")
async def test_the_lifespan_of_the_application_closes_the_dashboard(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    app, pages = stage.names["app"], stage.names["pages"]
    async with app.router.lifespan_context(app), Visitor(app, base="/oban") as visitor:
        await visitor.page("/queues")
        assert not pages.instances[0].live.is_full
    # A dashboard that is closed opens no more streams.
    assert pages.instances[0].live.is_full


@PAGE.shows("audit.append")
async def test_changes_and_refusals_are_told(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    job = await stage.oban.enqueue(Job(worker="app.Mail"))
    access = Access(user="ada", permissions=["cancel_jobs"])
    app = dashboard(stage.oban, authorize=lambda request: access)
    async with Visitor(app) as visitor:
        await visitor.post(f"/jobs/{job.id}/cancel")
        await visitor.post(f"/jobs/{job.id}/delete")
    changed, refused = stage.names["audit"]
    assert changed.startswith("ada: cancel_job")
    assert changed.endswith("done, 1 changed")
    assert refused.startswith("ada: delete_jobs refused, ")
    await app.aclose()


def test_the_searches_of_the_page_are_understood() -> None:
    section = SEARCHES.partition("## Searching jobs")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    searches = [query for cell in cells for query in re.findall(r"`([^`]+)`", cell)]
    assert len(searches) > 15
    (shown,) = fenced("docs/guides/dashboard_pages.md", "text")
    assert len(parse(shown.strip())) == 6
    assert all(parse(search) for search in searches if not search.startswith("<") and search != ">=")


def test_every_snippet_is_run_by_a_test() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets
