"""The page of one job: why it does not run, its timeline, its documents and its relatives."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from selectolax.lexbor import LexborHTMLParser
from sqlalchemy import insert, text

from oban import Job, JobState, Oban, Record, Worker
from oban.models import Attempt
from oban.web import Access, dashboard
from tests.support.jobs import reaches
from tests.support.rows import MADE, insert_row, insert_rows, row
from tests.support.waiting import eventually
from tests.support.web import Visitor
from tests.support.workers import Noop, Runs

HOSTILE = '"><script>alert(1)</script>\u202e\x07<b onclick=x>'


class Failing(Worker):
    """Logs, and fails with a secret in the message."""

    async def process(self, job: Job) -> None:
        job.log.warning("dials %s", job.args.get("token"))
        raise RuntimeError(f"refused {job.args.get('token')}")


class Recording(Worker):
    """Records a value."""

    async def process(self, job: Job) -> Record:
        return Record({"sent": 3})


def words(page: LexborHTMLParser, selector: str = "main") -> str:
    """The visible text of a part of a page, with single spaces."""
    found = page.css_first(selector)
    assert found is not None, selector
    return " ".join(found.text(separator=" ").split())


def steps(page: LexborHTMLParser) -> list[str]:
    """The titles of the timeline, the newest first."""
    return [" ".join(node.text().split()) for node in page.css(".step > .line:first-child strong")]


async def store_attempt(oban: Oban, job_id: int, **columns: Any) -> None:
    """Insert a row of the history."""
    values = {"job_id": job_id, "attempt": 1, "outcome": "failed", "ended_at": MADE, **columns}
    async with oban.engine.begin() as connection:
        await connection.execute(insert(Attempt).values(**values))


async def test_an_available_job_says_what_keeps_it_from_running(oban: Oban, visitor: Visitor) -> None:
    job = await oban.enqueue(Job(worker="shop.Mail", queue="mail", args={"to": "ada"}, tags=["vip"]))
    page = await visitor.page(f"/jobs/{job.id}")
    assert words(page, "h1") == f"Job {job.id}"
    assert words(page, ".decisive").startswith("shop.Mail · available, due")
    assert "No live node runs the queue mail." in words(page, "#why")
    assert "oban start" in words(page, "#why")
    assert steps(page) == ["First attempt", "Inserted"]
    assert "ada" in words(page, "#args")
    assert "vip" in words(page, ".facts")


@pytest.mark.execution
async def test_a_failed_attempt_has_its_traceback_log_and_duration(url: Any) -> None:
    async with Oban(url, queues={"default": 1}) as oban:
        job = await oban.enqueue(Failing.new({"token": "plain"}))
        await reaches(oban, job, JobState.RETRYABLE)
        app = dashboard(oban)
        async with Visitor(app) as visitor:
            page = await visitor.page(f"/jobs/{job.id}")
        await app.aclose()
    assert steps(page) == ["Next attempt", "Attempt 1", "Inserted"]
    assert "RuntimeError: refused plain" in words(page, ".step.attempt")
    assert "Traceback (most recent call last):" in words(page, ".step.attempt pre")
    assert page.css_first(".step.attempt pre .error") is not None
    assert "WARNING dials plain" in words(page, ".step.attempt .log")
    assert page.css_first(".step.attempt svg.took") is not None


@pytest.mark.execution
async def test_an_executing_job_has_its_progress_and_a_recorded_value_is_shown(url: Any) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 2}, progress_interval=0.01) as oban:
        app = dashboard(oban)
        async with Visitor(app) as visitor:
            job = await oban.enqueue(runs.worker.new())
            await eventually(lambda: runs.jobs)
            runs.jobs[0].progress(3, 10, "page 3")

            async def shows_progress() -> bool:
                page = await visitor.page(f"/jobs/{job.id}")
                return "3 of 10 (30%): page 3" in words(page, "#timeline")

            await eventually(shows_progress)
            page = await visitor.page(f"/jobs/{job.id}")
            assert steps(page) == ["Attempt 1", "Inserted"]
            assert "It runs on the node" in words(page, "#why")
            runs.finish(1)
            recording = await oban.enqueue(Recording.new())
            await reaches(oban, recording, JobState.COMPLETED)
            page = await visitor.page(f"/jobs/{recording.id}")
            assert "sent : 3" in words(page, "#recorded")
            assert steps(page) == ["Completed", "Attempt 1", "Inserted"]
            assert "return" not in words(page, "#meta")
        await app.aclose()


async def test_errors_of_attempts_without_history_are_steps(oban: Oban, visitor: Visitor) -> None:
    errors = [{"attempt": 1, "at": "2024-03-09T22:20:00Z", "error": "ValueError: first"}]
    job_id = await insert_row(oban.engine, "retryable", attempt=2, errors=errors)
    await store_attempt(oban, job_id, attempt=2, error="ValueError: second", node="n1", trace="ab" * 16)
    page = await visitor.page(f"/jobs/{job_id}")
    assert sorted(steps(page)) == ["Attempt 1", "Attempt 2", "Inserted", "Next attempt"]
    assert "ValueError: first" in words(page, "#timeline")
    assert "on n1" in words(page, "#timeline")
    assert "ab" * 16 in words(page, "#timeline")


async def test_many_attempts_are_shown_in_part(oban: Oban, visitor: Visitor) -> None:
    job_id = await insert_row(oban.engine, "retryable", attempt=30, max_attempts=40)
    for number in range(1, 31):
        await store_attempt(oban, job_id, attempt=number, ended_at=MADE + timedelta(minutes=number))
    page = await visitor.page(f"/jobs/{job_id}")
    assert len(page.css(".step.attempt")) == 20
    assert "10 earlier attempts are not shown." in words(page, "#timeline")
    page = await visitor.page(f"/jobs/{job_id}?attempts=100")
    assert len(page.css(".step.attempt")) == 30
    assert (await visitor.get(f"/jobs/{job_id}?attempts=-1%00")).status_code == 200


async def test_relatives_share_the_key_the_tags_or_the_worker(oban: Oban, visitor: Visitor) -> None:
    first = await oban.enqueue(Job(worker="shop.A", args={"n": 1}, unique={"states": ["available"]}))
    await oban.cancel_job(first)
    job = await oban.enqueue(
        Job(worker="shop.A", args={"n": 1}, tags=["x"], unique={"states": ["available"]})
    )
    tagged = await oban.enqueue(Job(worker="shop.B", tags=["x", "y"]))
    other = await oban.enqueue(Job(worker="shop.C"))
    page = await visitor.page(f"/jobs/{job.id}")
    lists = [[node.text() for node in each.css("a")] for each in page.css(".relatives")]
    assert lists == [[str(first.id)], [str(tagged.id)], [str(first.id)]]
    assert words(page, ".neighbours") == f"← Job {first.id} Job {tagged.id} →"
    assert "by worker, queue, args" in words(page, ".facts")
    page = await visitor.page(f"/jobs/{other.id}")
    assert "This is the newest job." in words(page, ".neighbours")


async def test_a_periodic_job_leads_to_its_entry(oban: Oban, visitor: Visitor) -> None:
    job_id = await insert_row(oban.engine, meta={"cron": True, "cron_name": "nightly & co"})
    page = await visitor.page(f"/jobs/{job_id}")
    links = [node.attributes["href"] or "" for node in page.css(".facts a")]
    assert any("nightly" in link for link in links)


async def test_documents_can_be_downloaded_as_files(oban: Oban, visitor: Visitor) -> None:
    job = await oban.enqueue(Job(worker="shop.Mail", args={"big": ["word"] * 50_000}))
    page = await visitor.page(f"/jobs/{job.id}")
    assert len(page.html or "") < 400_000
    answer = await visitor.get(f"/jobs/{job.id}/args.json")
    assert answer.json() == {"big": ["word"] * 50_000}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"
    await visitor.page(f"/jobs/{job.id}/state.json", status=404)
    await visitor.page("/jobs/99999/args.json", status=404)


async def test_hidden_fields_are_neither_shown_nor_downloaded_nor_repeated(oban: Oban) -> None:
    errors = [{"attempt": 1, "at": "2024-03-09T22:20:00Z", "error": "ValueError: xyzzy-error"}]
    progress = {"attempt": 1, "done": 1, "at": datetime.now(UTC).isoformat(), "message": "xyzzy-message"}
    meta = {"m": "xyzzy-meta", "progress": progress, "recorded": True, "return": "xyzzy-return"}
    ids = [
        await insert_row(oban.engine, state, args={"a": "xyzzy-args"}, meta=meta, errors=errors)
        for state in ("retryable", "discarded", "executing", "cancelled")
    ]
    log = [{"at": "2024-03-09T22:20:00Z", "level": "INFO", "text": "xyzzy-log"}]
    for id_ in ids:
        await store_attempt(oban, id_, error="xyzzy-error", log=log, progress=progress)
    hidden = ["args", "meta", "errors", "recorded", "log"]
    app = dashboard(oban, authorize=lambda _: Access.read_only("eve", hidden))
    async with Visitor(app) as visitor:
        for id_ in ids:
            answer = await visitor.get(f"/jobs/{id_}")
            assert answer.status_code == 200
            assert "xyzzy" not in answer.text
            for name in ("args", "meta", "errors", "recorded"):
                answer = await visitor.get(f"/jobs/{id_}/{name}.json")
                assert answer.status_code == 403
                assert "xyzzy" not in answer.text
    await app.aclose()


async def test_redacted_values_are_nowhere_on_the_page(oban: Oban, visitor: Visitor) -> None:
    meta = {"redact": ["token"]}
    job_id = await insert_row(
        oban.engine,
        "discarded",
        args={"token": "xyzzy-secret", "note": "uses xyzzy-secret"},
        meta=meta,
        tags=["xyzzy-secret"],
        errors=[{"attempt": 1, "at": "2024-03-09T22:20:00Z", "error": "ValueError: xyzzy-secret"}],
    )
    for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/args.json", f"/jobs/{job_id}/errors.json"):
        answer = await visitor.get(path)
        assert answer.status_code == 200
        assert "xyzzy-secret" not in answer.text
        assert "[redacted]" in answer.text


async def test_texts_of_a_job_are_shown_as_texts(oban: Oban, visitor: Visitor) -> None:
    hostile = HOSTILE.replace("\x00", "")
    job_id = await insert_row(
        oban.engine,
        "discarded",
        worker=hostile,
        queue=hostile,
        args={hostile: hostile},
        meta={"cron": True, "cron_name": hostile},
        tags=[hostile],
        attempted_by=[hostile, hostile],
        errors=[{"attempt": 7, "at": hostile, "error": hostile}],
        unique_key=hostile,
    )
    log = [{"at": hostile, "level": hostile, "text": hostile}, hostile, 7]
    await store_attempt(oban, job_id, error=hostile, node=hostile, log=log, trace=hostile, outcome=hostile)
    page = await visitor.page(f"/jobs/{job_id}")
    assert all(node.attributes.get("src") for node in page.css("script"))
    assert not page.css("main b, main [onclick]")
    assert "<script>alert(1)</script>" in words(page, ".facts")
    for selector in (".decisive", ".facts", "#timeline", ".document .leaf"):
        assert "\u202e" not in words(page, selector)


BROKEN: list[dict[str, Any]] = [
    {"state": "paused-by-me"},
    {"args": "[1, 2]"},
    {"args": "not json"},
    {"args": "7"},
    {"meta": "[1]"},
    {"meta": '"text"'},
    {"errors": "{}"},
    {"errors": "not json"},
    {"errors": '[1, null, {"attempt": "x"}, {"attempt": 1, "at": 5, "error": {"a": 1}}]'},
    {"tags": "7"},
    {"tags": "[1, null, [2]]"},
    {"attempted_by": '"node"'},
    {"attempted_by": "[null]"},
    {"attempt": "many"},
    {"max_attempts": "few"},
    {"priority": "high"},
    {"scheduled_at": "yesterday"},
    {"inserted_at": "never"},
    {"attempted_at": "5"},
    {"unique_key": 5},
    {"unique_key": "k", "unique_rule": "[]"},
    {"worker": b"\xff\x00"},
    {"queue": 5},
]


async def insert_broken(oban: Oban, state: str) -> list[int]:
    """Insert a row for each of `BROKEN`, and return their ids."""
    ids = await insert_rows(oban.engine, *(row(state) for _ in BROKEN))
    async with oban.engine.begin() as connection:
        await connection.execute(text("PRAGMA ignore_check_constraints = on"))
        for id_, columns in zip(ids, BROKEN, strict=True):
            assignments = ", ".join(f"{name} = :{name}" for name in columns)
            await connection.execute(text(f"UPDATE oban_jobs SET {assignments} WHERE id = {id_}"), columns)
    return ids


@pytest.mark.parametrize("state", ["available", "executing", "discarded"])
async def test_a_broken_row_is_shown_and_can_be_deleted(sqlite_url: Any, state: str) -> None:
    async with Oban(sqlite_url) as oban:
        ids = await insert_broken(oban, state)
        app = dashboard(oban)
        async with Visitor(app) as visitor:
            for id_, columns in zip(ids, BROKEN, strict=True):
                for path in (f"/jobs/{id_}", f"/jobs/{id_}/edit", f"/jobs/{id_}/delete"):
                    answer = await visitor.get(path)
                    assert answer.status_code == 200, (columns, path, answer.text)
        await app.aclose()


@pytest.mark.parametrize("action", ["retry", "again", "cancel", "edit", "delete"])
async def test_an_action_on_a_broken_row_does_it_or_says_why_not(sqlite_url: Any, action: str) -> None:
    async with Oban(sqlite_url) as oban:
        ids = await insert_broken(oban, "discarded" if action == "retry" else "available")
        app = dashboard(oban)
        async with Visitor(app) as visitor:
            for id_, columns in zip(ids, BROKEN, strict=True):
                form = {}
                if action == "edit":
                    page = await visitor.page(f"/jobs/{id_}/edit")
                    form = {
                        str(node.attributes["name"]): node.attributes.get("value") or ""
                        for node in page.css(".form input")
                    } | {"max_attempts": "25", "meta": "{}", "worker": "shop.New", "in": "1h"}
                answer = await visitor.post(f"/jobs/{id_}/{action}", form)
                assert answer.status_code in (303, 409, 422), (columns, answer.status_code, answer.text)
        await app.aclose()


async def test_a_job_whose_worker_is_known_here_shows_its_page(oban: Oban, visitor: Visitor) -> None:
    job = await oban.enqueue(Noop.new({"n": 1}, schedule_in=3600))
    page = await visitor.page(f"/jobs/{job.id}")
    assert "scheduled, due" in words(page, ".decisive")
