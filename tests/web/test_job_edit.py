"""The form that edits a job."""

import json
from typing import Any

import pytest
from selectolax.lexbor import LexborHTMLParser

from oban import Job, Oban
from oban.web import Access, dashboard
from tests.support.jobs import row_of
from tests.support.rows import insert_row
from tests.support.web import Visitor
from tests.support.workers import Noop


def filled(page: LexborHTMLParser, **entered: str) -> dict[str, str]:
    """What a browser sends for the form of a page in which a user has entered some values."""
    form: dict[str, str] = {}
    for node in page.css("form.form input"):
        form[str(node.attributes["name"])] = node.attributes.get("value") or ""
    for node in page.css("form.form textarea"):
        # A browser drops the first line break of a text area, and sends the others as CRLF.
        form[str(node.attributes["name"])] = node.text().removeprefix("\n").replace("\n", "\r\n")
    return {**form, "button": "save", **entered}


async def edit(visitor: Visitor, job: Job | int, **entered: str) -> Any:
    """Open the form of a job, enter some values and send it."""
    path = f"/jobs/{job if isinstance(job, int) else job.id}/edit"
    return await visitor.post(path, filled(await visitor.page(path), **entered))


def problem(answer: Any, name: str) -> str:
    """What the page says is wrong with a field."""
    assert answer.status_code in (409, 422), (answer.status_code, answer.text)
    found = LexborHTMLParser(answer.text).css_first(f"#field-{name}-problem")
    assert found is not None, answer.text
    return " ".join(found.text().split())


async def test_each_field_can_be_changed(oban: Oban, visitor: Visitor) -> None:
    job = await oban.enqueue(Job(worker="shop.A", args={"n": 1}, meta={"m": 1}, tags=["a"]))
    answer = await edit(
        visitor,
        job,
        worker="shop.B",
        args='{"n": 2}',
        meta='{"m": 2}',
        queue="slow",
        priority="3",
        max_attempts="7",
        tags="x\r\nY, z",
        at="2040-01-31T09:30",
    )
    assert answer.status_code == 303, answer.text
    row = await row_of(oban, job)
    assert (row.worker, row.args, row.meta, row.queue) == ("shop.B", {"n": 2}, {"m": 2}, "slow")
    assert (row.priority, row.max_attempts, row.tags, row.state) == (3, 7, ["x", "y, z"], "scheduled")
    assert row.scheduled_at.isoformat() == "2040-01-31T09:30:00+00:00"


async def test_only_what_was_changed_is_written(oban: Oban, visitor: Visitor) -> None:
    job = await oban.enqueue(
        Job(worker="shop.A", args={"n": 1.0, "text": "\u202e\u0007 x"}, schedule_in=60.5)
    )
    before = await row_of(oban, job)
    answer = await edit(visitor, job)
    assert "Nothing was changed." in (await visitor.page(answer.headers["location"])).text()
    answer = await edit(visitor, job, priority="9")
    assert answer.status_code == 303
    row = await row_of(oban, job)
    assert row.priority == 9
    assert (row.args, row.scheduled_at, row.state) == (before.args, before.scheduled_at, before.state)


async def test_a_period_from_now_replaces_the_time(oban: Oban, visitor: Visitor) -> None:
    job = await oban.enqueue(Job(worker="shop.A"))
    answer = await edit(visitor, job, **{"in": "2h"})
    assert answer.status_code == 303
    row = await row_of(oban, job)
    assert row.state == "scheduled"
    assert 7100 < (row.scheduled_at - row.inserted_at).total_seconds() < 7300


@pytest.mark.parametrize(
    ("name", "entered", "message"),
    [
        ("args", '{"n": 1,\n "m" 2}', "is not JSON: expecting ':' delimiter in line 2, column 6"),
        ("args", "[1]", 'must be a JSON object, such as {"id": 1}, not a list'),
        ("args", '{"n": NaN}', "cannot be read: NaN is not JSON"),
        ("args", '{"n": ' + "[" * 300 + "]" * 300 + "}", "nested"),
        ("args", '{"a": ["x\\u0000"]}', '["a"][0] holds a NUL character'),
        ("meta", '{"redact": []}', "has the key redact, which Oban sets itself"),
        ("queue", "a b", "'a b' is not a queue name"),
        ("queue", "", "must not be empty"),
        ("priority", "10", "must be 0 to 9, not 10"),
        ("priority", "1.5", "must be a whole number, not '1.5'"),
        ("max_attempts", "0", "must be 1 to 32767, not 0"),
        ("worker", "x" * 256, "is longer than 255 characters"),
        ("tags", "x" * 256, "has one of more than 255 characters"),
        ("at", "tomorrow", "must be a time such as 2030-01-31 09:30"),
        ("in", "soon", "must be a number of seconds, or a period"),
    ],
)
async def test_a_wrong_value_is_explained_at_its_field_and_kept(
    oban: Oban, visitor: Visitor, name: str, entered: str, message: str
) -> None:
    job = await oban.enqueue(Job(worker="shop.A", args={"n": 1}))
    answer = await edit(visitor, job, **{name: entered}, **({"tags": "kept"} if name != "tags" else {}))
    assert message in problem(answer, name)
    page = filled(LexborHTMLParser(answer.text))
    assert page[name].replace("\r\n", "\n") == entered
    assert name == "tags" or page["tags"] == "kept"
    row = await row_of(oban, job)
    assert (row.args, row.tags, row.queue) == ({"n": 1}, [], "default")


async def test_all_problems_are_shown_at_once(oban: Oban, visitor: Visitor) -> None:
    job = await oban.enqueue(Job(worker="shop.A"))
    answer = await edit(visitor, job, args="{", queue="a b", priority="12", at="soon")
    assert [bool(problem(answer, name)) for name in ("args", "queue", "priority", "at")] == [True] * 4


async def test_a_job_that_changed_meanwhile_is_not_overwritten(oban: Oban, visitor: Visitor) -> None:
    job = await oban.enqueue(Job(worker="shop.A", args={"n": 1}))
    page = await visitor.page(f"/jobs/{job.id}/edit")
    await oban.update_job(job.id, {"args": {"n": 2}, "queue": "slow"})
    answer = await visitor.post(f"/jobs/{job.id}/edit", filled(page, args='{"n": 3}'))
    assert answer.status_code == 409
    assert "The job has changed since you opened this form" in answer.text
    assert (await row_of(oban, job)).args == {"n": 2}
    again = LexborHTMLParser(answer.text)
    form = filled(again)
    # What the user has entered, and the current values of what the user has not touched.
    assert (form["args"], form["queue"]) == ('{"n": 3}', "slow")
    assert (await visitor.post(f"/jobs/{job.id}/edit", form)).status_code == 303
    row = await row_of(oban, job)
    assert (row.args, row.queue) == ({"n": 3}, "slow")


async def test_another_field_that_changed_meanwhile_is_no_conflict(oban: Oban, visitor: Visitor) -> None:
    job = await oban.enqueue(Job(worker="shop.A"))
    page = await visitor.page(f"/jobs/{job.id}/edit")
    await oban.update_job(job.id, {"queue": "slow"})
    assert (await visitor.post(f"/jobs/{job.id}/edit", filled(page, priority="1"))).status_code == 303
    row = await row_of(oban, job)
    assert (row.queue, row.priority) == ("slow", 1)


async def test_a_job_that_ended_meanwhile_is_not_changed_silently(oban: Oban, visitor: Visitor) -> None:
    job = await oban.enqueue(Job(worker="shop.A"))
    page = await visitor.page(f"/jobs/{job.id}/edit")
    await oban.cancel_job(job.id)
    answer = await visitor.post(f"/jobs/{job.id}/edit", filled(page, priority="1"))
    assert answer.status_code == 409
    assert "state is now" in " ".join(LexborHTMLParser(answer.text).css_first(".notice").text().split())  # type: ignore[union-attr]
    await oban.delete_job(job.id)
    answer = await visitor.post(f"/jobs/{job.id}/edit", filled(page, priority="1"))
    assert answer.status_code == 303
    assert f"There is no job {job.id} any more." in (await visitor.page(answer.headers["location"])).text()


async def test_review_shows_the_changes_and_saves_nothing(oban: Oban, visitor: Visitor) -> None:
    job = await oban.enqueue(Job(worker="shop.A", args={"n": 1, "keep": 1}))
    answer = await edit(visitor, job, args='{"n": 2, "keep": 1}', queue="slow", button="review")
    assert answer.status_code == 200
    page = LexborHTMLParser(answer.text)
    assert [node.text().strip() for node in page.css(".diff .removed")] == ['-  "n": 1,', "-default"]
    assert [node.text().strip() for node in page.css(".diff .added")] == ['+  "n": 2,', "+slow"]
    assert (await row_of(oban, job)).args == {"keep": 1, "n": 1}
    assert (await visitor.post(f"/jobs/{job.id}/edit", filled(page))).status_code == 303
    assert (await row_of(oban, job)).args == {"keep": 1, "n": 2}


async def test_a_duplicate_is_refused_with_a_link_to_the_other_job(oban: Oban, visitor: Visitor) -> None:
    first = await oban.enqueue(Job(worker="shop.A", args={"n": 1}, unique=True))
    second = await oban.enqueue(Job(worker="shop.A", args={"n": 2}, unique=True))
    answer = await edit(visitor, second, args='{"n": 1}')
    assert answer.status_code == 409
    assert f'/jobs/{first.id}"' in answer.text
    assert (await row_of(oban, second)).args == {"n": 2}


SECRET = {
    "card": {"number": "xyzzy-4111"},
    "list": [1, {"token": "xyzzy-t"}],
    "note": "paid by xyzzy-t",
    "n": 1,
}


async def secret_job(oban: Oban) -> int:
    """A job with redacted values, also within another text."""
    meta = {"redact": ["card.number", "token"], "m": 1}
    return await insert_row(oban.engine, worker="shop.A", args=SECRET, meta=meta)


async def test_redacted_values_are_kept_when_the_rest_is_edited(oban: Oban, visitor: Visitor) -> None:
    job_id = await secret_job(oban)
    page = await visitor.page(f"/jobs/{job_id}/edit")
    assert "xyzzy" not in (page.html or "")
    shown = json.loads(filled(page)["args"])
    shown["n"], shown["new"] = 2, ["x"]
    answer = await edit(visitor, job_id, args=json.dumps(shown), meta='{"m": 2}')
    assert answer.status_code == 303, answer.text
    row = await row_of(oban, job_id)
    assert row.args == {**SECRET, "n": 2, "new": ["x"]}
    assert row.meta == {"m": 2, "redact": ["card.number", "token"]}


@pytest.mark.parametrize(
    "change",
    [
        lambda args: args.pop("card"),
        lambda args: args["list"].reverse(),
        lambda args: args.update(copy="[redacted]"),
        lambda args: args["card"].update(number="4111"),
        lambda args: args.update(note="is [redacted] it?"),
        lambda args: args.pop("note"),
    ],
)
async def test_redacted_values_cannot_be_moved_or_removed(oban: Oban, visitor: Visitor, change: Any) -> None:
    job_id = await secret_job(oban)
    shown = json.loads(filled(await visitor.page(f"/jobs/{job_id}/edit"))["args"])
    change(shown)
    answer = await edit(visitor, job_id, args=json.dumps(shown))
    assert "redacted" in problem(answer, "args")
    assert "xyzzy" not in answer.text
    assert (await row_of(oban, job_id)).args == SECRET


async def test_another_worker_leaves_the_same_values_redacted(oban: Oban, visitor: Visitor) -> None:
    job_id = await insert_row(oban.engine, worker="shop.A", args=SECRET, meta={"redact": ["token"]})
    assert (await edit(visitor, job_id, worker=Noop.worker_name)).status_code == 303
    row = await row_of(oban, job_id)
    assert (row.worker, row.meta) == (Noop.worker_name, {"redact": ["token"]})


async def test_hidden_fields_are_not_shown_and_stay(oban: Oban) -> None:
    job = await oban.enqueue(Job(worker="shop.A", args={"a": "xyzzy"}, meta={"m": "xyzzy"}))
    access = Access(user="eve", permissions=["update_jobs"], hidden=["args", "meta"])
    app = dashboard(oban, authorize=lambda _: access)
    async with Visitor(app) as visitor:
        page = await visitor.page(f"/jobs/{job.id}/edit")
        assert "xyzzy" not in (page.html or "")
        assert "Args is hidden from you" in page.text() or "Args are hidden" in page.text()
        forged = filled(page, priority="4", args="{}", seen_args="x", meta="{}", seen_meta="x")
        answer = await visitor.post(f"/jobs/{job.id}/edit", forged)
        assert answer.status_code == 409
        assert "xyzzy" not in answer.text
        assert (await visitor.post(f"/jobs/{job.id}/edit", filled(page, priority="4"))).status_code == 303
    await app.aclose()
    row = await row_of(oban, job)
    assert (row.priority, row.args, row.meta) == (4, {"a": "xyzzy"}, {"m": "xyzzy"})


async def test_a_large_document_is_left_to_the_library(oban: Oban, visitor: Visitor) -> None:
    job = await oban.enqueue(Job(worker="shop.A", args={"big": "x" * 300_000}))
    page = await visitor.page(f"/jobs/{job.id}/edit")
    assert page.css_first("#field-args") is None
    assert "too long for a form" in page.text()
    assert (await edit(visitor, job, priority="2")).status_code == 303
    assert (await row_of(oban, job)).args == {"big": "x" * 300_000}
