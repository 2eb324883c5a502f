"""The overview: numbers over time, failures by worker, and queues that are behind."""

import asyncio
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from selectolax.lexbor import LexborHTMLParser, LexborNode
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, JobState, Oban, Worker, dialects
from oban.job_search.language import parse
from oban.job_search.terms import Term
from oban.models import Attempt
from oban.web import Access, Dashboard, background, dashboard, trends
from oban.web.background import Background
from oban.web.trends import WINDOWS, Query, Trends
from tests.support.waiting import eventually, within
from tests.support.web import Visitor


class Charging(Worker, redact=["card"]):
    async def process(self, job: Job) -> None: ...


def make(worker: str, state: str, at: datetime | None = None, **values: Any) -> Job:
    """A job in any state, as a node would have left it."""
    job = Job(worker=worker, **{key: values.pop(key) for key in ("queue", "args") if key in values})
    job.state = JobState(state)
    if at is not None and state in ("completed", "cancelled", "discarded"):
        setattr(job, f"{state}_at", at)
    for name, value in values.items():
        setattr(job, name, value)
    return job


async def store(oban: Oban, *rows: Job | Attempt) -> None:
    async with AsyncSession(oban.engine) as session:
        session.add_all(rows)
        await session.commit()


async def read(oban: Oban, at: datetime, window: str = "1h") -> Trends:
    dialect = dialects.for_bind(oban.engine.sync_engine)
    async with AsyncSession(oban.engine) as session:
        return await Query(session, dialect, WINDOWS[window], at).read()


async def now(oban: Oban) -> datetime:
    return (await oban.stats(count_limit=1)).at.replace(second=30, microsecond=0)


async def test_jobs_are_counted_in_the_minute_in_which_they_finished(oban: Oban) -> None:
    at = await now(oban)
    ended = at - timedelta(minutes=5)
    await store(
        oban,
        *(make("w", state, ended) for state in ("completed", "completed", "cancelled", "discarded")),
        make("w", "completed", at - timedelta(hours=2)),
        make("w", "available"),
    )
    found = await read(oban, at)
    assert len(found.times) == 60
    assert found.finished["completed"][-6] == sum(found.finished["completed"]) == 2
    assert found.finished["cancelled"][-6] == found.finished["discarded"][-6] == 1
    assert found.counted_from is None
    assert sum((await read(oban, at, "24h")).finished["completed"]) == 3


async def test_failed_attempts_are_those_of_the_history(oban: Oban) -> None:
    at = await now(oban)
    job = make("w", "retryable", attempt=2)
    await store(oban, job)
    ended = at - timedelta(minutes=1)
    rows = [("failed", ended), ("completed", ended), ("failed", at - timedelta(hours=3))]
    await store(
        oban, *(Attempt(job_id=1, attempt=n, outcome=each, ended_at=on) for n, (each, on) in enumerate(rows))
    )
    found = await read(oban, at)
    assert found.failed[-2] == sum(found.failed) == 1


async def test_waits_are_a_median_and_a_high_percentile_of_each_minute(oban: Oban) -> None:
    at = await now(oban)
    started = at - timedelta(minutes=3)
    await store(
        oban,
        *(
            make("w", "completed", at, scheduled_at=started - timedelta(seconds=n), attempted_at=started)
            for n in range(1, 101)
        ),
    )
    wait = (await read(oban, at)).wait
    assert wait["p50"][-4] == pytest.approx(50.0)
    assert wait["p95"][-4] == pytest.approx(95.0)
    assert wait["p50"][-3] is None


async def test_depth_is_rebuilt_from_when_jobs_were_due_and_started(oban: Oban) -> None:
    at = await now(oban)
    due = at - timedelta(minutes=10)
    await store(
        oban,
        make("w", "completed", at, scheduled_at=due, attempted_at=due + timedelta(minutes=5)),
        make("w", "executing", scheduled_at=due, attempted_at=due + timedelta(minutes=8), attempt=1),
        make("w", "cancelled", at - timedelta(minutes=1), scheduled_at=due),
        make("w", "available", scheduled_at=at - timedelta(hours=5)),
        make("w", "scheduled", scheduled_at=at + timedelta(hours=5)),
    )
    depth = (await read(oban, at)).depth
    assert [depth[0], depth[-11], depth[-10], depth[-6], depth[-3], depth[-1]] == [1, 4, 4, 3, 2, 1]


async def test_workers_are_listed_by_the_time_that_their_jobs_ran(oban: Oban) -> None:
    at = await now(oban)
    ran = {"short": [1, 1, 1], "long": [20, 40]}
    await store(
        oban,
        *(
            make(name, "completed", at, attempted_at=at - timedelta(seconds=n))
            for name, times in ran.items()
            for n in times
        ),
    )
    found = (await read(oban, at)).workers
    assert [(each.worker, each.jobs) for each in found] == [("long", 2), ("short", 3)]
    assert found[0].total == pytest.approx(60.0, abs=0.01)
    assert found[0].longest == pytest.approx(40.0, abs=0.01)


async def test_numbers_say_from_when_on_they_are_complete(
    oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trends, "COUNTED", 3)
    monkeypatch.setattr(trends, "EXAMINED", 2)
    at = await now(oban)
    times = [at - timedelta(minutes=n) for n in range(5)]
    await store(oban, *(make("w", "completed", each, attempted_at=each) for each in times))
    found = await read(oban, at)
    assert sum(found.finished["completed"]) == 3
    assert found.counted_from is not None
    assert abs(found.counted_from - times[2]) < timedelta(seconds=1)
    assert found.examined_from is not None
    assert abs(found.examined_from - times[1]) < timedelta(seconds=1)
    assert found.depth[0] is None


def failed(worker: str, state: str, at: datetime, error: str = "ValueError: no", **values: Any) -> Job:
    entry = {"attempt": 1, "at": at.isoformat(), "error": error}
    return make(worker, state, at, attempt=1, attempted_at=at, errors=[entry], **values)


def first(node: LexborHTMLParser | LexborNode, selector: str) -> LexborNode:
    found = node.css_first(selector)
    assert found is not None
    return found


async def rows_of(visitor: Visitor, id_: str) -> LexborHTMLParser:
    """A panel of the overview, once its numbers are there."""

    async def found() -> Any:
        page = await visitor.page("/")
        return page if page.css_first(f"#{id_}") else None

    page: LexborHTMLParser = await eventually(found)
    return page


async def test_what_failed_most_today_comes_first_with_its_last_error_and_a_link(
    oban: Oban, visitor: Visitor
) -> None:
    at = await now(oban)
    await store(
        oban,
        *(
            failed("app.Mail", state, at - timedelta(hours=1))
            for state in ("discarded", "retryable", "retryable")
        ),
        failed("app.Mail", "discarded", at, "OSError: the server is away"),
        failed("app.Image", "discarded", at - timedelta(hours=2)),
        failed("app.Old", "discarded", at - timedelta(days=2)),
    )
    page = await rows_of(visitor, "failures-by-worker")
    rows = page.css("#failures-by-worker tbody tr")
    assert [first(row, "a").text().strip() for row in rows] == ["app.Mail", "app.Image"]
    assert "80 %" in rows[0].text()
    assert "2 discarded" in rows[0].text()
    assert "OSError: the server is away" in rows[0].text()
    address = first(rows[0], "a").attributes["href"]
    assert address is not None
    [(_, query)] = visitor.http.build_request("GET", f"http://localhost{address}").url.params.items()
    assert parse(query) == (Term("state", ("discarded", "retryable")), Term("worker", ("app.Mail",)))
    assert "app.Old" not in first(page, "#recent-failures").text()


async def test_redacted_values_are_not_in_errors(oban: Oban, visitor: Visitor) -> None:
    at = await now(oban)
    job = failed(
        Charging.new({}).worker, "discarded", at, "ValueError: bad 4242424242", args={"card": "4242424242"}
    )
    await store(oban, job)
    page = await rows_of(visitor, "recent-failures")
    assert "ValueError: bad" in page.text()
    assert "4242424242" not in (page.html or "")


async def test_a_user_from_whom_errors_are_hidden_sees_none(oban: Oban) -> None:
    await store(oban, failed("w", "discarded", await now(oban), "ValueError: secret words"))
    app = dashboard(oban, authorize=lambda _: Access.read_only("ada", hidden=["errors"]))
    async with Visitor(app) as visitor:
        page = await rows_of(visitor, "recent-failures")
        assert page.css("#failures-by-worker tbody tr")
        assert "secret words" not in (page.html or "")
    await app.aclose()


async def test_queues_that_nothing_works_on_are_behind_and_say_why(oban: Oban, visitor: Visitor) -> None:
    waiting = await now(oban) - timedelta(minutes=10)
    await store(oban, make("w", "available", queue="mail", scheduled_at=waiting))
    await oban.pause_queue("mail")
    page = await visitor.page("/")
    [row] = page.css("#behind tbody tr")
    assert "mail" in row.text()
    assert "No live node runs this queue." in row.text()


async def test_each_chart_has_a_table_with_the_same_numbers(oban: Oban, visitor: Visitor) -> None:
    at = await now(oban)
    await store(oban, *(make("w", "completed", at - timedelta(minutes=10)) for _ in range(7)))
    page = await rows_of(visitor, "chart-throughput")
    panel = first(page, "#chart-throughput")
    document = orjson.loads(first(panel, ".plot").attributes["data-chart"] or "")
    completed = document["series"][0]["values"]
    assert 7.0 in completed
    cells = [row.css("td")[1].text().strip() for row in panel.css("tbody tr")]
    assert [float(each) for each in cells] == completed[::-1]


async def test_a_period_that_does_not_exist_is_refused(visitor: Visitor) -> None:
    assert (await visitor.get("/?window=1y")).status_code == 400


async def test_the_page_says_that_the_database_does_not_answer(
    oban: Oban, app: Dashboard, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, Exception("no connection"))

    monkeypatch.setattr(oban, "stats", fail)
    page = await visitor.page("/")
    assert "The database does not answer." in page.text()


async def test_the_page_says_what_is_missing_and_recovers_when_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "SHORT_PAUSE", 0.0)
    url = f"sqlite+aiosqlite:///{tmp_path / 'new.db'}"
    board = dashboard(Oban(url))
    async with Visitor(board) as visitor:
        page = await visitor.page("/")
        assert (
            "The tables of Oban are missing or out of date."
            in first(page, "section[aria-label=State]").text()
        )
        assert "oban install" in first(page, "section[aria-label=State]").text()
        assert "too long" not in page.text()
        assert (await visitor.get("/jobs")).status_code == 503
        install = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "oban", "install", "--database-url", url
        )
        assert await within(install.wait()) == 0

        async def has_recovered() -> bool:
            return "does not exist" not in (await visitor.page("/")).text()

        await eventually(has_recovered)
    await board.aclose()


class Computing:
    """Computes numbers, when it is let."""

    def __init__(self) -> None:
        self.count = 0
        self.may = asyncio.Event()
        self.fails = False

    async def __call__(self) -> int:
        self.count += 1
        await self.may.wait()
        if self.fails:
            raise TimeoutError
        return self.count


async def test_a_value_is_computed_once_for_all_who_ask_and_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "PATIENCE", 0.01)
    computing = Computing()
    value = Background(computing, max_age=60.0, name="a number")
    assert await within(asyncio.gather(*(value.get() for _ in range(20)))) == [None] * 20
    computing.may.set()
    assert await eventually(value.get) == 1
    await value.get()
    assert computing.count == 1
    await value.close()


async def test_the_last_value_stays_while_a_new_one_is_computed_or_fails() -> None:
    computing = Computing()
    computing.may.set()
    value = Background(computing, max_age=0.0, name="a number")
    assert await value.get() == 1
    computing.fails = True

    async def has_failed() -> bool:
        assert await value.get() == 1
        return value.failed

    await eventually(has_failed)
    await value.close()


async def test_a_value_that_is_out_of_date_is_computed_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "SHORT_PAUSE", 0.0)
    computing = Computing()
    computing.may.set()
    value = Background(computing, max_age=3600.0, name="a number")
    assert await eventually(value.get) == 1
    assert await value.get() == 1
    value.expire()

    async def is_renewed() -> bool:
        return await value.get() == 2

    await eventually(is_renewed)
    await value.close()
