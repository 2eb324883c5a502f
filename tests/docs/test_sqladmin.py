"""The views of `docs/frameworks/sqladmin.md`, driven over HTTP."""

import re
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from sqlalchemy import URL

from oban import Job, Oban, Worker
from tests.docs.stage import Page, Snippet, Stage
from tests.support.rows import delete_rows, insert_row, lasting_url, read_row

PAGE = Page("frameworks/sqladmin.md")
FORM = {"queue": "media", "priority": "2", "max_attempts": "5", "args": '{"to": "b"}', "save": "Save"}


class Mail(Worker, name="docs.Mail"):
    async def process(self, job: Job) -> None: ...


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture
async def stage(oban: Oban) -> Stage:
    """The application of the page."""
    await delete_rows(oban.engine)
    stage = Stage(oban)
    stage.names["engine"] = oban.engine
    for snippet in PAGE.snippets:
        await stage.run(snippet)
    return stage


@pytest.fixture
async def browser(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(stage.names["app"], raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin/admin/") as client:
        yield client


async def page(browser: httpx.AsyncClient, path: str) -> str:
    response = await browser.get(path)
    assert response.status_code == 200, response.text
    return response.text


@PAGE.shows("class JobAdmin")
async def test_jobs_are_listed_searched_and_filtered(
    stage: Stage, browser: httpx.AsyncClient, snippet: Snippet
) -> None:
    mail = await stage.oban.enqueue(Mail.new({"to": "a@b.c"}, tags=["vip"]))
    done = await insert_row(stage.oban.engine, "completed", queue="media")
    for query, shown in (
        ("", {mail.id, done}),
        ("sortBy=scheduled_at&sort=desc", {mail.id, done}),
        ("search=docs", {mail.id}),
        ("state=completed", {done}),
        ("queue=default", {mail.id}),
    ):
        found = re.findall(r"/admin/job/details/(\d+)", await page(browser, f"job/list?{query}"))
        assert set(map(int, found)) == shown, query
    details = await page(browser, f"job/details/{mail.id}")
    assert "a@b.c" in details
    assert "docs.Mail" in details


async def test_an_edit_is_checked_and_stored(stage: Stage, browser: httpx.AsyncClient) -> None:
    job = await stage.oban.enqueue(Mail.new({"to": "a"}, meta={"kept": 1}))
    form = await page(browser, f"job/edit/{job.id}")
    assert set(re.findall(r'name="(\w+)"', form)) >= {"queue", "priority", "max_attempts", "args"}
    before = await read_row(stage.oban.engine, job.id)
    for change, problem in (
        ({"priority": "12"}, "priority must be 0 to 9, not 12"),
        ({"args": "[1]"}, "args must be a dict, not list"),
        ({"queue": "a b"}, "is not a queue name"),
    ):
        refused = await browser.post(f"job/edit/{job.id}", data={**FORM, **change})
        assert (refused.status_code, problem in refused.text) == (400, True), refused.text
        assert await read_row(stage.oban.engine, job.id) == before
    assert (await browser.post(f"job/edit/{job.id}", data=FORM)).status_code == 302
    changed = {"queue": "media", "priority": 2, "max_attempts": 5, "args": {"to": "b"}}
    assert await read_row(stage.oban.engine, job.id) == {**(before or {}), **changed}


async def test_the_actions_change_the_chosen_jobs(stage: Stage, browser: httpx.AsyncClient) -> None:
    first, second, other = [job.id for job in await stage.oban.enqueue_many(Mail.new() for _ in range(3))]
    running = await insert_row(stage.oban.engine, "executing")

    async def act(name: str, *ids: int) -> list[str]:
        answer = await browser.get(f"job/action/{name}", params={"pks": ",".join(map(str, ids))})
        assert (answer.status_code, answer.headers["location"]) == (303, "http://admin/admin/job/list")
        rows = [await read_row(stage.oban.engine, id_) for id_ in (first, second, other, running)]
        return ["gone" if row is None else str(row["state"]) for row in rows]

    assert await act("cancel", first, second) == ["cancelled", "cancelled", "available", "executing"]
    assert await act("retry", second) == ["cancelled", "available", "available", "executing"]
    assert await act("delete-jobs", first, running) == ["gone", "available", "available", "executing"]


async def test_nothing_is_created_or_deleted_past_the_actions(
    stage: Stage, browser: httpx.AsyncClient
) -> None:
    job = await stage.oban.enqueue(Mail.new())
    assert (await browser.get("job/create")).status_code == 403
    assert (await browser.post("job/create", data=FORM)).status_code == 403
    assert (await browser.delete("job/delete", params={"pks": str(job.id)})).status_code == 403
    assert await read_row(stage.oban.engine, job.id) is not None


@PAGE.shows("class ProducerAdmin")
async def test_the_running_queues_are_listed(
    stage: Stage, browser: httpx.AsyncClient, snippet: Snippet
) -> None:
    async with Oban(stage.oban.engine, node="node-seven", queues={"media": 1}):
        listed = await page(browser, "producer/list")
    assert "node-seven" in listed
    assert "media" in listed
    assert (await browser.get("producer/create")).status_code == 403


@PAGE.shows("cancel_in_the_admin")
async def test_the_test_of_the_page_cancels_a_job(stage: Stage, snippet: Snippet) -> None:
    job = await stage.oban.enqueue(Mail.new())
    answer = await stage.names["cancel_in_the_admin"](job)
    assert (answer.status_code, answer.headers["location"]) == (303, "http://test/admin/job/list")
    row = await read_row(stage.oban.engine, job.id)
    assert row is not None
    assert row["state"] == "cancelled"


def test_every_snippet_of_the_page_is_run() -> None:
    assert PAGE.shown == PAGE.snippets
