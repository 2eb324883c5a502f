"""Bulk actions: the preview says what happens, and then exactly that happens."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from selectolax.lexbor import LexborHTMLParser
from sqlalchemy import select, update

from oban import Job, Oban, Worker
from oban.telemetry import DashboardAction
from oban.web import Access, dashboard
from oban.web.jobs import bulk, search, selection
from tests.support.rows import STATES, insert_rows, row
from tests.support.web import Visitor

NOW = datetime.now(UTC)


class Pay(Worker, name="tests.BulkPay", redact=["pin"]):
    async def process(self, job: Job) -> None: ...


class Once(Worker, name="tests.Once", unique={"fields": ["worker", "queue"]}):
    async def process(self, job: Job) -> None: ...


@pytest.fixture
async def jobs(oban: Oban) -> None:
    """Three jobs in each state; those of the second round are in the queue `mail`."""
    past = {"attempted_at": NOW - timedelta(hours=1)}
    await insert_rows(
        oban.engine,
        *(
            row(state, queue=queue, **(past if state == "executing" else {}))
            for queue in ("default", "mail", "default")
            for state in STATES
        ),
    )


async def previewed(visitor: Visitor, **parameters: Any) -> LexborHTMLParser:
    """The preview at its end, however many requests the counting takes."""
    response = await visitor.http.get("/jobs/bulk", params=parameters)
    assert response.status_code == 200, response.text
    page = LexborHTMLParser(response.text)
    while (onward := page.css_first("[hx-get]")) is not None:
        page = await visitor.page(str(onward.attributes["hx-get"]))
    return page


def form(page: LexborHTMLParser, **more: str) -> tuple[str, dict[str, Any]]:
    """The address and the fields of the form that changes jobs."""
    found = page.css_first("form[method=post]")
    assert found is not None, page.text()
    fields: dict[str, Any] = {}
    for each in found.css("input[type=hidden]"):
        name, value = str(each.attributes["name"]), each.attributes["value"] or ""
        if name == "id":
            fields.setdefault("id", []).append(value)
        else:
            fields[name] = value
    return str(found.attributes["action"]), {**fields, **more}


async def confirmed(visitor: Visitor, page: LexborHTMLParser, **more: str) -> LexborHTMLParser:
    """The result of the form of a preview, at its end."""
    path, fields = form(page, **more)
    response = await visitor.post(path, fields)
    assert response.status_code == 200, response.text
    page = LexborHTMLParser(response.text)
    while page.css_first("form[hx-post]") is not None:
        response = await visitor.post(*form(page))
        page = LexborHTMLParser(response.text)
    return page


async def states(oban: Oban) -> Counter[str]:
    counts: Counter[str] = Counter()
    for each in (await oban.count_jobs()).values():
        counts.update({str(state): number for state, number in each.items() if number})
    return counts


def text(page: LexborHTMLParser) -> str:
    return " ".join(page.css_first("main").text(separator=" ").split())  # type: ignore[union-attr]


CANCELLED = Counter(cancelled=18, completed=3, discarded=3)


@pytest.mark.usefixtures("jobs")
async def test_all_matching_jobs_are_cancelled_as_the_preview_says(visitor: Visitor, oban: Oban) -> None:
    page = await previewed(visitor, action="cancel", all="1", q="")
    assert "15 jobs will be cancelled" in text(page)
    assert "Every job of this instance" in text(page)
    assert "3 completed: they have ended" in text(page)
    result = await confirmed(visitor, page)
    assert "15 jobs were cancelled." in text(result)
    assert "3 that were executing" in text(result)
    assert await states(oban) == CANCELLED


@pytest.mark.usefixtures("jobs")
async def test_a_whole_search_takes_many_short_requests(
    visitor: Visitor, oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "WINDOW", 4)
    monkeypatch.setattr(selection, "BUDGET", 0.0)
    monkeypatch.setattr(bulk, "BUDGET", 0.0)
    page = await previewed(visitor, action="cancel", all="1", q="-tag:nothing")
    assert "15 jobs will be cancelled" in text(page)
    assert "15 jobs were cancelled." in text(await confirmed(visitor, page))
    assert await states(oban) == CANCELLED


@pytest.mark.usefixtures("jobs")
async def test_jobs_that_match_only_after_the_preview_are_left_alone(visitor: Visitor, oban: Oban) -> None:
    page = await previewed(visitor, action="retry", all="1", q="state:cancelled")
    assert "3 jobs will be retried" in text(page)
    await insert_rows(oban.engine, row("cancelled"))
    async with oban.engine.begin() as connection:
        # One is cancelled after the preview, and one that was meant is changed by somebody else.
        later = {"state": "cancelled", "cancelled_at": datetime.now(UTC) + timedelta(seconds=5)}
        await connection.execute(update(Job).where(Job.id == 1).values(**later))
    assert await oban.delete_job(8)
    result = await confirmed(visitor, page)
    assert "2 jobs were retried." in text(result)
    kept = await oban.list_jobs(select(Job).where(Job.state == "cancelled").order_by(Job.id))
    assert [job.id for job in kept] == [1, 25]


@pytest.mark.usefixtures("jobs")
async def test_selected_jobs_are_deleted_once_the_word_is_typed(visitor: Visitor, oban: Oban) -> None:
    page = await previewed(visitor, action="delete", id=["1", "4", "8", "999"])
    assert "2 jobs will be deleted" in text(page)
    assert "1 executing: it is running: cancel it first" in text(page)
    assert "1 that does not exist any more" in text(page)
    path, fields = form(page)
    refused = await visitor.post(path, fields)
    assert refused.status_code == 400
    assert "type delete to confirm" in refused.text
    assert sum((await states(oban)).values()) == 24
    result = await confirmed(visitor, page, confirm="delete")
    assert "2 jobs were deleted." in text(result)
    assert await oban.get_job(1) is None
    assert await oban.get_job(4) is not None


@pytest.mark.usefixtures("jobs")
async def test_an_update_shows_the_resulting_values_and_sets_them(visitor: Visitor, oban: Oban) -> None:
    await oban.update_job(9, {"tags": ["old", "kept"]})
    page = await previewed(visitor, action="update", all="1", q="queue:mail")
    assert page.css_first("form[method=post]") is None
    changes = {"queue": "bulk", "priority": "7", "add_tags": "new", "remove_tags": "old",
               "meta_key": "batch", "meta_value": "7", "max_attempts": "5"}  # fmt: skip
    page = await previewed(visitor, action="update", all="1", q="queue:mail", **changes)
    assert "8 jobs will be updated" in text(page)
    assert "priority: 3 → 7" in text(page)
    assert "8 jobs were updated." in text(await confirmed(visitor, page))
    job = await oban.get_job(9)
    assert job is not None
    assert (job.queue, job.priority, job.max_attempts) == ("bulk", 7, 5)
    assert (job.tags, job.meta) == (["kept", "new"], {"batch": 7})
    assert not await oban.list_jobs(select(Job).where(Job.queue == "mail"))


async def test_jobs_with_a_duplicate_in_their_way_are_counted_and_left_alone(
    visitor: Visitor, oban: Oban
) -> None:
    await oban.enqueue(Once.new(queue="a"))
    await oban.enqueue(Once.new(queue="b"))
    await oban.enqueue(Once.new(queue="c"))
    page = await previewed(visitor, action="update", all="1", q="-queue:c", queue="c")
    result = await confirmed(visitor, page)
    assert "0 jobs were updated." in text(result)
    assert "2 left alone: another job with the same unique key" in text(result)


async def test_redacted_values_do_not_decide_what_is_changed(visitor: Visitor, oban: Oban) -> None:
    await oban.enqueue(Pay.new({"pin": "4711", "shop": 1}))
    await oban.enqueue(Pay.new({"pin": "9999", "shop": 1}))
    right = await previewed(visitor, action="cancel", all="1", q='args.pin:"4711"')
    assert "No job would be cancelled." in text(right)
    page = await previewed(visitor, action="cancel", all="1", q='-args.pin:"4711" args.shop:1')
    assert "2 jobs will be cancelled" in text(page)
    assert "2 jobs were cancelled." in text(await confirmed(visitor, page))


@pytest.mark.usefixtures("jobs")
async def test_each_action_needs_its_permission(oban: Oban) -> None:
    access = Access(user="ada", permissions=["retry_jobs"])
    app = dashboard(oban, authorize=lambda _: access)
    async with Visitor(app) as visitor:
        page = await visitor.page("/jobs")
        assert [each.attributes["value"] for each in page.css("button[name=action]")] == ["retry"]
        for action in ("cancel", "delete", "update"):
            assert (await visitor.get(f"/jobs/bulk?action={action}&id=1")).status_code == 403
            assert (await visitor.post(f"/jobs/bulk/{action}", {"id": "1"})).status_code == 403
        assert (await visitor.get("/jobs/bulk?action=retry&id=1")).status_code == 200
    await app.aclose()
    assert await states(oban) == Counter(dict.fromkeys(STATES, 3))


@pytest.mark.usefixtures("jobs")
async def test_a_whole_search_is_told_to_the_audit_trail(visitor: Visitor, oban: Oban) -> None:
    events: list[Any] = []
    oban.telemetry.attach(events.append, DashboardAction)
    await confirmed(visitor, await previewed(visitor, action="cancel", all="1", q="queue:mail"))
    assert {(each.action, each.filter) for each in events} == {("cancel_jobs", "queue:mail")}
    assert sum(each.count for each in events) == 5


WRONG = [
    ("/jobs/bulk?action=explode&id=1", 404, "no such action"),
    ("/jobs/bulk?action=cancel", 400, "Select jobs first"),
    ("/jobs/bulk?action=cancel&id=x", 400, "'x' is not the id of a job"),
    ("/jobs/bulk?action=cancel&all=1&q=stat:x", 400, "did you mean state?"),
    ("/jobs/bulk?action=cancel&all=1&at=soon", 400, "is not a time"),
    ("/jobs/bulk?action=cancel&all=1&counted=x", 400, "begin again"),
    ("/jobs/bulk?action=update&id=1&priority=99", 400, "priority must be 0 to 9"),
    ("/jobs/bulk?action=update&id=1&queue=a%20b", 400, "is not a queue name"),
    ("/jobs/bulk?action=update&id=1&scheduled_at=soon", 400, "is not a time"),
    ("/jobs/bulk?action=update&id=1&run_now=1&scheduled_at=2026-01-30", 400, "exclude each other"),
    ("/jobs/bulk?action=update&id=1&meta_key=redact&meta_value=1", 400, "Oban sets the key redact"),
    ("/jobs/bulk?action=update&id=1&meta_value=1", 400, "needs a key"),
]


async def test_wrong_requests_say_what_is_wrong_and_change_nothing(visitor: Visitor) -> None:
    for address, status, problem in WRONG:
        page = await visitor.page(address, status=status)
        assert problem in text(page), (address, text(page))
    for path, form_fields in (
        ("/jobs/bulk/cancel", {"all": "1"}),
        ("/jobs/bulk/update", {"id": "1"}),
        ("/jobs/bulk/delete", {"id": "1", "confirm": "no"}),
    ):
        assert (await visitor.post(path, form_fields)).status_code == 400
