"""The form for a new job."""

import json
from typing import Any

import pytest
from selectolax.lexbor import LexborHTMLParser
from typing_extensions import TypedDict

from oban import Job, Oban, Worker, encryption
from oban.web import Access, dashboard
from oban.web.job import known
from tests.support.jobs import row_of
from tests.support.rows import insert_row
from tests.support.web import Visitor


class MailArgs(TypedDict):
    to: str
    copies: int


class Mail(Worker[MailArgs], name="tests.web.Mail", queue="mail", max_attempts=3):
    """A worker whose args have a type."""

    async def process(self, job: Job) -> None:
        return None


class Sealed(Worker, name="tests.web.Sealed", encrypt=encryption.generate_key()):
    """A worker whose args are encrypted."""

    async def process(self, job: Job) -> None:
        return None


def filled(page: LexborHTMLParser, **entered: str) -> dict[str, str]:
    """What a browser sends for the form of a page in which a user has entered some values."""
    form = {
        str(node.attributes["name"]): node.attributes.get("value") or "" for node in page.css(".form input")
    }
    form |= {
        str(node.attributes["name"]): node.text().removeprefix("\n") for node in page.css(".form textarea")
    }
    return {**form, "unique": "", "button": "enqueue", **entered}


async def new_job(visitor: Visitor, query: str = "", **entered: str) -> Any:
    """Open the form, enter some values and send it."""
    page = await visitor.page(f"/jobs/new{query}")
    return await visitor.post("/jobs/new", filled(page, **entered))


async def enqueued(oban: Oban, answer: Any) -> Job:
    """The job whose page an answer leads to."""
    assert answer.status_code == 303, answer.text
    return await row_of(oban, int(answer.headers["location"].rpartition("/")[2]))


def said(answer: Any) -> str:
    """The text of the main part of an answer, with single spaces."""
    found = LexborHTMLParser(answer.text).css_first("main")
    assert found is not None
    return " ".join(found.text(separator=" ").split())


async def test_a_job_of_a_worker_that_is_not_known_here(oban: Oban, visitor: Visitor) -> None:
    answer = await new_job(
        visitor,
        worker="shop.A",
        args='{"n": 1}',
        queue="slow",
        priority="2",
        max_attempts="4",
        tags="b\na",
        meta='{"m": 1}',
        **{"in": "1h"},
    )
    job = await enqueued(oban, answer)
    assert (job.worker, job.args, job.queue, job.priority) == ("shop.A", {"n": 1}, "slow", 2)
    assert (job.max_attempts, job.tags, job.meta, job.state) == (4, ["a", "b"], {"m": 1}, "scheduled")


async def test_empty_fields_have_the_values_of_the_worker(oban: Oban, visitor: Visitor) -> None:
    job = await enqueued(
        oban, await new_job(visitor, worker="tests.web.Mail", args='{"to": "a", "copies": 1}')
    )
    assert (job.queue, job.max_attempts, job.args) == ("mail", 3, {"to": "a", "copies": 1})


async def test_args_are_checked_against_the_type_of_the_worker(oban: Oban, visitor: Visitor) -> None:
    answer = await new_job(visitor, worker="tests.web.Mail", args='{"to": "a", "copies": "many"}')
    assert answer.status_code == 422
    assert "do not fit MailArgs: copies" in said(answer)
    assert "to string copies integer" in said(answer)
    form = filled(LexborHTMLParser(answer.text))
    assert form["args"] == '{"to": "a", "copies": "many"}'
    assert await oban.list_jobs() == []


@pytest.mark.parametrize(
    ("entered", "message"),
    [
        ({"worker": " "}, "must not be empty"),
        ({"args": "{"}, "is not JSON"),
        ({"queue": "a b"}, "is not a queue name"),
        ({"priority": "11"}, "must be 0 to 9"),
        ({"at": "2030-01-01 00:00", "in": "1h"}, "exclude each other"),
        ({"in": "9999999999999999d"}, "ends after the year 9999"),
        ({"unique": "yes", "period": "0s"}, "period must be more than 0 seconds"),
        ({"meta": '{"progress": 1}'}, "has the key progress, which Oban sets itself"),
    ],
)
async def test_what_is_wrong_is_said_and_nothing_is_lost(
    oban: Oban, visitor: Visitor, entered: dict[str, str], message: str
) -> None:
    answer = await new_job(visitor, **{"worker": "shop.A", "tags": "kept", **entered})
    assert answer.status_code == 422, answer.status_code
    assert message in said(answer)
    assert filled(LexborHTMLParser(answer.text))["tags"] == "kept"
    assert await oban.list_jobs() == []


async def test_a_duplicate_is_not_enqueued_and_has_a_link(oban: Oban, visitor: Visitor) -> None:
    first = await enqueued(oban, await new_job(visitor, worker="shop.A", unique="yes", period="1h"))
    answer = await new_job(visitor, worker="shop.A", unique="yes", period="1h")
    assert answer.status_code == 409
    assert f'/jobs/{first.id}"' in answer.text
    assert len(await oban.list_jobs()) == 1


async def test_check_warns_and_enqueues_nothing(oban: Oban, visitor: Visitor) -> None:
    answer = await new_job(visitor, worker="shop.A", queue="nobodys", button="check")
    assert answer.status_code == 200
    assert "No live node runs the queue nobodys" in said(answer)
    assert "This dashboard does not know the worker shop.A" in said(answer)
    assert await oban.list_jobs() == []


async def test_workers_of_this_process_and_of_recent_jobs_are_suggested(
    oban: Oban, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other tests of this process have workers as well.
    monkeypatch.setattr(known, "SUGGESTED", 100_000)
    await oban.enqueue(Job(worker="shop.Recent", queue="recent"))
    page = await visitor.page("/jobs/new")
    workers = {node.attributes["value"] for node in page.css("#workers option")}
    assert {"shop.Recent", "tests.web.Mail"} <= workers
    assert "recent" in {node.attributes["value"] for node in page.css("#queues option")}


async def test_a_job_like_another_one_copies_what_is_not_shown(oban: Oban, visitor: Visitor) -> None:
    args = {"token": "xyzzy-secret", "n": 1}
    meta = {"redact": ["token"], "m": 1, "snoozed": 2, "cron_name": "x"}
    source = await insert_row(oban.engine, "discarded", worker="shop.A", queue="slow", args=args, meta=meta)
    page = await visitor.page(f"/jobs/new?from={source}")
    assert "xyzzy" not in (page.html or "")
    shown = json.loads(filled(page)["args"])
    answer = await new_job(visitor, f"?from={source}", args=json.dumps({**shown, "n": 2}))
    job = await enqueued(oban, answer)
    assert (job.worker, job.queue, job.args) == ("shop.A", "slow", {"token": "xyzzy-secret", "n": 2})
    assert job.meta == {"redact": ["token"], "m": 1}
    # The value cannot be moved to where it would be shown.
    answer = await new_job(visitor, f"?from={source}", args='{"shown": "[redacted]", "n": 1}')
    assert answer.status_code == 422
    assert "xyzzy" not in answer.text


async def test_hidden_args_are_copied_without_being_shown(oban: Oban) -> None:
    source = await oban.enqueue(Job(worker="shop.A", args={"a": "xyzzy"}, meta={"m": "xyzzy"}))
    access = Access(user="eve", permissions=["enqueue_jobs"], hidden=["args", "meta"])
    app = dashboard(oban, authorize=lambda _: access)
    async with Visitor(app) as visitor:
        page = await visitor.page(f"/jobs/new?from={source.id}")
        assert "xyzzy" not in (page.html or "")
        assert "is copied" in page.text()
        job = await enqueued(oban, await new_job(visitor, f"?from={source.id}", priority="3"))
    await app.aclose()
    assert (job.args, job.meta, job.priority) == ({"a": "xyzzy"}, {"m": "xyzzy"}, 3)


async def test_encrypted_args_are_copied_for_the_same_worker_only(oban: Oban, visitor: Visitor) -> None:
    source = await oban.enqueue(Sealed.new({"a": "xyzzy"}))
    page = await visitor.page(f"/jobs/new?from={source.id}")
    assert page.css_first("#field-args") is None
    job = await enqueued(oban, await new_job(visitor, f"?from={source.id}"))
    assert Sealed.args_of(job) == {"a": "xyzzy"}
    answer = await new_job(visitor, f"?from={source.id}", worker="shop.A")
    assert answer.status_code == 422
    assert "the args that are copied are encrypted" in said(answer)


async def test_a_source_that_is_gone_is_named(oban: Oban, visitor: Visitor) -> None:
    source = await oban.enqueue(Job(worker="shop.A"))
    form = filled(await visitor.page(f"/jobs/new?from={source.id}"))
    await oban.delete_job(source)
    answer = await visitor.post("/jobs/new", form)
    assert answer.status_code == 422
    assert "does not exist any more" in said(answer)
    assert (await visitor.get("/jobs/new?from=" + "9" * 5000)).status_code == 200


async def test_the_form_needs_the_permission(oban: Oban) -> None:
    app = dashboard(oban, authorize=lambda _: Access.read_only("eve"))
    async with Visitor(app) as visitor:
        await visitor.page("/jobs/new", status=403)
        assert (await visitor.post("/jobs/new", {"worker": "shop.A"})).status_code == 403
    await app.aclose()
    assert await oban.list_jobs() == []
