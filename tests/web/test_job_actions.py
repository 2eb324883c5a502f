"""Cancel, retry, delete and run again, from the page of a job."""

from typing import Any

import pytest

from oban import Job, JobState, Oban, Worker
from oban.telemetry import DashboardAction
from oban.web import Access, dashboard
from tests.support.jobs import row_of
from tests.support.rows import insert_row
from tests.support.web import Visitor


class Unique(Worker, name="tests.web.Unique", unique={"states": ["available"]}):
    """Its jobs are unique."""

    async def process(self, job: Job) -> None:
        return None


async def said(visitor: Visitor, answer: Any) -> str:
    """What the page says that an action has led to."""
    assert answer.status_code == 303, answer.text
    page = await visitor.page(answer.headers["location"])
    found = page.css_first(".flash")
    assert found is not None
    return " ".join(found.text().split())


async def test_cancel_ends_a_job_and_says_that_a_worker_is_asked(oban: Oban, visitor: Visitor) -> None:
    waiting = await oban.enqueue(Job(worker="shop.A"))
    answer = await visitor.post(f"/jobs/{waiting.id}/cancel")
    assert await said(visitor, answer) == f"Job {waiting.id} is cancelled."
    assert (await row_of(oban, waiting)).state == JobState.CANCELLED
    running = await insert_row(oban.engine, "executing")
    answer = await visitor.post(f"/jobs/{running}/cancel")
    assert "Its worker is asked to stop" in await said(visitor, answer)
    answer = await visitor.post(f"/jobs/{running}/cancel")
    assert await said(visitor, answer) == f"Job {running} is not cancelled: it is cancelled."


async def test_retry_takes_the_options_of_the_library(oban: Oban, visitor: Visitor) -> None:
    job_id = await insert_row(oban.engine, "discarded", attempt=20, max_attempts=20)
    answer = await visitor.post(f"/jobs/{job_id}/retry", {"in": "2h", "queue": "slow", "priority": "1"})
    assert await said(visitor, answer) == f"Job {job_id} is scheduled."
    row = await row_of(oban, job_id)
    assert (row.state, row.queue, row.priority, row.max_attempts) == ("scheduled", "slow", 1, 21)
    answer = await visitor.post(f"/jobs/{job_id}/retry")
    assert await said(visitor, answer) == f"Job {job_id} is available again."
    answer = await visitor.post(f"/jobs/{job_id}/retry")
    assert await said(visitor, answer) == f"Job {job_id} is not retried: it is available."


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({"in": "soon"}, "in must be a number of seconds, or a period such as 90s, 15m, 6h or 7d"),
        ({"priority": "ten"}, "priority must be a whole number, not 'ten'"),
        ({"priority": "10"}, "priority must be 0 to 9, not 10"),
        ({"queue": "a b"}, "is not a queue name"),
    ],
)
async def test_a_wrong_option_of_a_retry_changes_nothing(
    oban: Oban, visitor: Visitor, form: dict[str, str], problem: str
) -> None:
    job_id = await insert_row(oban.engine, "discarded")
    answer = await visitor.post(f"/jobs/{job_id}/retry", form)
    assert problem in await said(visitor, answer)
    assert (await row_of(oban, job_id)).state == JobState.DISCARDED


async def test_a_retry_names_the_unique_job_in_its_way(oban: Oban, visitor: Visitor) -> None:
    first = await oban.enqueue(Unique.new())
    await oban.cancel_job(first)
    second = await oban.enqueue(Unique.new())
    answer = await visitor.post(f"/jobs/{first.id}/retry")
    assert f"job {second.id} is in its way" in await said(visitor, answer)


async def test_delete_asks_first_and_leaves_an_executing_job(oban: Oban, visitor: Visitor) -> None:
    job = await oban.enqueue(Job(worker="shop.A"))
    page = await visitor.page(f"/jobs/{job.id}/delete")
    assert "It has not ended: it will never run." in (page.text() or "")
    answer = await visitor.post(f"/jobs/{job.id}/delete")
    assert await said(visitor, answer) == f"Job {job.id} is deleted."
    assert await oban.get_job(job.id) is None
    running = await insert_row(oban.engine, "executing")
    page = await visitor.page(f"/jobs/{running}/delete")
    assert page.css_first("main form") is None
    answer = await visitor.post(f"/jobs/{running}/delete")
    assert "it is executing. Cancel it first." in await said(visitor, answer)


@pytest.mark.parametrize("action", ["cancel", "retry", "delete", "again"])
async def test_an_action_on_a_job_that_is_gone_says_so(visitor: Visitor, action: str) -> None:
    answer = await visitor.post(f"/jobs/999/{action}")
    assert "no job 999" in (await said(visitor, answer)).lower()


async def test_run_again_copies_everything_but_what_happened(oban: Oban, visitor: Visitor) -> None:
    meta = {"customer": 7, "recorded": True, "return": 1, "cron": True, "cron_name": "x", "redact": ["token"]}
    job_id = await insert_row(
        oban.engine,
        "discarded",
        worker="shop.A",
        queue="slow",
        args={"token": "xyzzy", "n": 1},
        meta=meta,
        tags=["vip"],
        max_attempts=3,
        priority=5,
    )
    answer = await visitor.post(f"/jobs/{job_id}/again")
    assert f"a new one with what job {job_id} has" in await said(visitor, answer)
    new = await row_of(oban, int(answer.headers["location"].rpartition("/")[2]))
    assert new.id != job_id
    assert (new.worker, new.queue, new.args, new.tags) == (
        "shop.A",
        "slow",
        {"token": "xyzzy", "n": 1},
        ["vip"],
    )
    assert (new.max_attempts, new.priority, new.attempt, new.state) == (3, 5, 0, "available")
    assert new.meta == {"customer": 7, "redact": ["token"]}


async def test_run_again_reports_the_job_in_the_way(oban: Oban, visitor: Visitor) -> None:
    job = await oban.enqueue(Unique.new({"n": 1}))
    answer = await visitor.post(f"/jobs/{job.id}/again")
    assert f"this one, job {job.id}, is in the way" in await said(visitor, answer)
    assert len(await oban.list_jobs()) == 1


async def test_what_cannot_be_run_again_is_refused_without_its_secrets(oban: Oban, visitor: Visitor) -> None:
    args = {"token": "xyzzy-secret"}
    job_id = await insert_row(
        oban.engine, "discarded", queue="xyzzy-secret of mine", args=args, meta={"redact": ["token"]}
    )
    answer = await visitor.post(f"/jobs/{job_id}/again")
    shown = await said(visitor, answer)
    assert "cannot be run again: queue" in shown
    assert "xyzzy" not in shown


async def test_each_change_is_told_to_the_audit_trail(oban: Oban, visitor: Visitor) -> None:
    told: list[DashboardAction] = []
    oban.telemetry.attach(told.append, DashboardAction)
    job_id = await insert_row(oban.engine, "retryable")
    for action in ("cancel", "cancel", "retry", "again", "delete"):
        await visitor.post(f"/jobs/{job_id}/{action}")
    found = [(each.action, each.outcome, each.ids, each.count) for each in told]
    assert found == [
        ("cancel_jobs", "done", (job_id,), 1),
        ("cancel_jobs", "failed", (job_id,), 0),
        ("retry_jobs", "done", (job_id,), 1),
        ("enqueue_jobs", "done", (job_id + 1,), 1),
        ("delete_jobs", "done", (job_id,), 1),
    ]


@pytest.mark.parametrize(
    ("action", "permission"),
    [
        ("cancel", "cancel_jobs"),
        ("retry", "retry_jobs"),
        ("delete", "delete_jobs"),
        ("again", "enqueue_jobs"),
        ("edit", "update_jobs"),
    ],
)
async def test_each_action_needs_its_permission(oban: Oban, action: str, permission: str) -> None:
    job_id = await insert_row(oban.engine, "retryable")
    others = {"cancel_jobs", "retry_jobs", "delete_jobs", "update_jobs", "enqueue_jobs"} - {permission}
    app = dashboard(oban, authorize=lambda _: Access(user="eve", permissions=others))
    async with Visitor(app) as visitor:
        assert (await visitor.post(f"/jobs/{job_id}/{action}")).status_code == 403
        page = await visitor.page(f"/jobs/{job_id}")
        links = [node.attributes.get("action") or "" for node in page.css("form")]
        links += [node.attributes.get("href") or "" for node in page.css("a")]
        assert not any(link.endswith(f"/{job_id}/{action}") for link in links)
    await app.aclose()
    row = await row_of(oban, job_id)
    assert row.state == JobState.RETRYABLE
