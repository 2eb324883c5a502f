"""The list of jobs: what a search finds, pages, tabs, and what a user does not see."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from selectolax.lexbor import LexborHTMLParser
from sqlalchemy import URL, select

from oban import Job, Oban, Worker, filters, migration
from oban.web import Access, Dashboard, dashboard, sampler
from oban.web.jobs import search
from tests.support.rows import insert_rows, row
from tests.support.web import Visitor

NOW = datetime.now(UTC)


def ids(page: LexborHTMLParser) -> list[int]:
    """The ids of the jobs of a page."""
    return [int(str(each.attributes["id"]).removeprefix("job-")) for each in page.css("#rows > tr")]


def link(page: LexborHTMLParser, label: str) -> str | None:
    """The address of the link with a text."""
    found = [each.attributes["href"] for each in page.css("a") if label in each.text()]
    return found[0] if found else None


async def listed(visitor: Visitor, query: str, **more: Any) -> list[int]:
    response = await visitor.http.get(f"{visitor.base}/jobs", params={"q": query, **more})
    assert response.status_code == 200, response.text
    return ids(LexborHTMLParser(response.text))


@pytest.fixture
async def jobs(oban: Oban) -> None:
    """Jobs 1 to 4."""
    await insert_rows(
        oban.engine,
        *[
            row("available", queue="mail", worker="app.SendEmail", tags=["vip", "eu"], priority=0,
                args={"customer": {"id": 7, "name": "Ann Lee"}, "items": [{"sku": "A-1"}]},
                meta={"source": "a b"}, inserted_at=NOW - timedelta(minutes=5)),
            row("completed", queue="mail", worker="app.SendEmail", args={"customer": {"id": "7"}}, attempt=4,
                attempted_by=["web-1", "x"], inserted_at=NOW - timedelta(hours=3)),
            row("retryable", queue="slow", worker="app.Report", tags=["nightly"], attempted_by=["web-2", "y"],
                args={}, inserted_at=NOW - timedelta(days=2)),
            row("executing", queue="slow", worker="app.Report", priority=9, args={"done": True}, attempt=1,
                attempted_at=NOW - timedelta(minutes=1),
                inserted_at=NOW - timedelta(days=3)),
        ],
    )  # fmt: skip


FOUND: dict[str, list[int]] = {
    "": [4, 3, 2, 1],
    "state:available,retryable": [3, 1],
    "-state:completed": [4, 3, 1],
    "queue:mail": [2, 1],
    "queue:m*l": [2, 1],
    "-queue:slow": [2, 1],
    "worker:app.Report": [4, 3],
    "worker:*email": [2, 1],
    'worker:"*email"': [],
    "tag:vip": [1],
    "tag:VIP,nightly": [3, 1],
    "tag:vip tag:nightly": [],
    "-tag:vip": [4, 3, 2],
    "node:web-1": [2],
    "priority:0": [1],
    "priority:>3": [4],
    "attempt:>=4": [2],
    "id:2,3": [3, 2],
    "id:>2": [4, 3],
    "args.customer.id:7": [1],
    'args.customer.id:"7"': [2],
    "args.customer.id:*": [2, 1],
    "-args.customer.id:7": [4, 3, 2],
    "args.items.0.sku:A-1": [1],
    "args.done:true": [4],
    'meta.source:"a b"': [1],
    "inserted:<1h": [1],
    "inserted:>1h": [4, 3, 2],
    "inserted:>1d state:executing": [4],
    "attempted:<1h": [4],
    "scheduled:>1d": [3],
    f"inserted:{NOW - timedelta(days=2):%Y-%m-%d}": [3],
    "email": [2, 1],
    "NIGHT": [3],
    "slow report": [4, 3],
    "-report": [2, 1],
    "100%": [],
    "3": [3],
    "-3": [4, 2, 1],
    "nothing": [],
}


@pytest.mark.usefixtures("jobs")
async def test_each_filter_finds_its_jobs(visitor: Visitor) -> None:
    assert {query: await listed(visitor, query) for query in FOUND} == FOUND


@pytest.mark.usefixtures("jobs")
async def test_filters_find_what_the_filters_of_the_library_find(visitor: Visitor, oban: Oban) -> None:
    same = {
        "worker:app.Report": filters.worker("app.Report"),
        "tag:vip,nightly": filters.any_tag("vip", "nightly"),
        "args.customer.id:7": filters.args("customer", "id") == 7,
        'meta.source:"a b"': filters.meta("source") == "a b",
        "state:executing,completed": filters.state("executing", "completed"),
    }
    for query, condition in same.items():
        found = await oban.list_jobs(select(Job).where(condition).order_by(Job.id.desc()))
        assert await listed(visitor, query) == [job.id for job in found]


async def test_pages_are_complete_and_disjoint_while_jobs_are_inserted(visitor: Visitor, oban: Oban) -> None:
    await insert_rows(oban.engine, *[row("available") for _ in range(55)])
    page = await visitor.page("/jobs")
    seen = [ids(page)]
    while address := link(page, "Older →"):
        await insert_rows(oban.engine, *[row("available")])
        page = await visitor.page(address)
        seen.append(ids(page))
    assert [len(each) for each in seen] == [20, 20, 15]
    assert [each for page_ids in seen for each in page_ids] == list(range(55, 0, -1))
    back = await visitor.page(link(page, "← Newer") or "")
    assert ids(back) == seen[1]


@pytest.mark.parametrize("sort", ["oldest", "due", "running", "completed"])
async def test_pages_in_each_order_are_complete_and_disjoint(
    visitor: Visitor, oban: Oban, sort: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "WINDOW", 7)
    monkeypatch.setattr(search, "FEW", 10)
    state, column = {
        "oldest": ("available", "inserted_at"),
        "due": ("retryable", "scheduled_at"),
        "running": ("executing", "attempted_at"),
        "completed": ("completed", "completed_at"),
    }[sort]
    # Some jobs have the same time.
    times = [NOW - timedelta(minutes=(number * 37 % 50) // 2) for number in range(50)]
    await insert_rows(oban.engine, *[row(state, **{column: time}) for time in times])
    expected = [number for _, number in sorted((time, number + 1) for number, time in enumerate(times))]
    if sort == "oldest":
        expected = list(range(1, 51))
    if sort == "completed":
        expected.reverse()
    seen: list[int] = []
    address: str | None = f"/jobs?q=state:{state}&sort={sort}"
    pages = []
    while address:
        page = await visitor.page(address)
        if found := ids(page):
            pages.append(found)
            seen += found
        address = link(page, "Older →") or link(page, "Search older jobs") or link(page, "Search newer jobs")
    assert seen == expected
    # The jobs right before those of the last page, which can turn out to be empty.
    begin = len(expected) - len(ids(page))
    before = ids(await visitor.page(link(page, "← Newer") or ""))
    assert before
    assert before == expected[begin - len(before) : begin]


async def test_a_search_without_an_index_says_how_far_it_has_come(
    visitor: Visitor, oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "WINDOW", 10)
    monkeypatch.setattr(search, "BUDGET", 0.0)
    await insert_rows(
        oban.engine, *[row("available", tags=["rare"] if number == 3 else []) for number in range(40)]
    )
    page = await visitor.page("/jobs?q=tag:rare")
    assert ids(page) == []
    assert "Searched back to job 31: no match so far." in page.css_first("#search-status").text()  # type: ignore[union-attr]
    found: list[int] = []
    requests = 0
    while address := link(page, "Search older jobs"):
        page = await visitor.page(address)
        found += ids(page)
        requests += 1
    assert found == [4]
    assert requests <= 4


async def test_gaps_between_ids_cost_no_requests(
    visitor: Visitor, oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "BUDGET", 10.0)
    await insert_rows(oban.engine, *[row("available", id=each, tags=["x"]) for each in (1, 10**6, 10**12)])
    assert await listed(visitor, "tag:x") == [10**12, 10**6, 1]


@pytest.mark.parametrize("prefix", [None, "estimated"])
async def test_a_tab_estimates_many_jobs_by_the_statistics_of_postgresql(
    url: URL, monkeypatch: pytest.MonkeyPatch, prefix: str | None
) -> None:
    is_postgresql = url.get_backend_name() == "postgresql"
    if prefix and not is_postgresql:
        pytest.skip("SQLite has no schemas")
    monkeypatch.setattr(sampler, "COUNT_LIMIT", 10)
    await asyncio.to_thread(migration.upgrade, url, prefix=prefix)
    async with Oban(url, prefix=prefix) as oban:
        await oban.enqueue_many(Job(worker="app.Send") for _ in range(120))
        async with oban.engine.connect() as connection:
            table = "oban_jobs" if prefix is None else f"{prefix}.oban_jobs"
            await connection.exec_driver_sql(f"ANALYZE {table}")
            await connection.commit()
        app = dashboard(oban)
        async with Visitor(app) as visitor:
            tabs = [" ".join(each.text().split()) for each in (await visitor.page("/jobs")).css(".tabs a")]
            of_queue = await visitor.page("/jobs?q=queue:default")
            overview = await visitor.page("/")
        await app.aclose()
    estimate = "≈ 120" if is_postgresql else "10+"
    assert tabs[1:3] == [f"available {estimate}", "scheduled 0"]
    assert "10+" in of_queue.css_first(".tabs").text()  # type: ignore[union-attr]
    assert estimate in overview.css_first(".cards").text()  # type: ignore[union-attr]


@pytest.mark.usefixtures("jobs")
async def test_tabs_count_by_state_and_queue(visitor: Visitor) -> None:
    tabs = [
        " ".join(each.text().split()) for each in (await visitor.page("/jobs?q=queue:mail")).css(".tabs a")
    ]
    assert tabs == ["all", "available 1", "scheduled 0", "suspended 0", "executing 0", "retryable 0",
                    "completed 1", "discarded 0", "cancelled 0"]  # fmt: skip
    tabs = [each.text().strip() for each in (await visitor.page("/jobs?q=tag:vip")).css(".tabs a")]
    assert tabs[1] == "available"
    page = await visitor.page("/jobs?q=queue:mail&state=completed")
    assert ids(page) == [2]
    assert page.css_first(".tabs [aria-current]").text().strip().startswith("completed")  # type: ignore[union-attr]


WRONG = [
    ("/jobs?q=stat:x", "'stat' is not a filter; did you mean state?"),
    ("/jobs?state=x", "'x' is not a state"),
    ("/jobs?q=inserted:<99999999w", "outside of the years"),
    ("/jobs?after=x", "is not a place in the list"),
    ("/jobs?after=99999999999999999999", "is not a place in the list"),
    ("/jobs?q=state:completed&sort=completed&after=2026-13-01_3", "is not a place in the list"),
    ("/jobs?q=%00", "NUL"),
]


async def test_a_wrong_address_says_what_is_wrong(visitor: Visitor) -> None:
    for address, problem in WRONG:
        page = await visitor.page(address, status=400)
        assert problem in page.css_first("main").text()  # type: ignore[union-attr]


async def test_without_jobs_the_page_shows_how_to_enqueue_one(visitor: Visitor) -> None:
    page = await visitor.page("/jobs")
    assert "oban.enqueue" in page.css_first(".empty").text()  # type: ignore[union-attr]
    page = await visitor.page("/jobs?q=queue:x")
    assert "No job matches." in page.css_first(".empty").text()  # type: ignore[union-attr]


async def test_a_large_job_is_listed_without_its_values(visitor: Visitor, oban: Oban) -> None:
    noise = [hash(str(number)) for number in range(20_000)]
    await insert_rows(oban.engine, *[row("available", args={"noise": noise}, tags=["big"])])
    page = await visitor.page("/jobs")
    assert "Too large for the list" in page.css_first("#rows").text()  # type: ignore[union-attr]
    assert len(page.html or "") < 100_000


class Pay(Worker, name="tests.Pay", redact=["pin", "card.number"]):
    async def process(self, job: Job) -> None: ...


@asynccontextmanager
async def visiting(oban: Oban, access: Access) -> AsyncIterator[Visitor]:
    made: Dashboard = dashboard(oban, authorize=lambda _: access)
    async with Visitor(made) as visitor:
        yield visitor
    await made.aclose()


async def test_redacted_values_cannot_be_searched(visitor: Visitor, oban: Oban) -> None:
    await oban.enqueue(Pay.new({"pin": "4711", "card": {"number": 12}, "amount": 5}, tags=["x4711"]))
    # A program that does not know the worker only has the names in the meta.
    await insert_rows(oban.engine, *[row("available", worker="Else", args={"pin": "4711"}, tags=["x4711"],
                                        meta={"redact": ["pin"], "copy": "4711"})])  # fmt: skip
    for right, wrong in [
        ('args.pin:"4711"', 'args.pin:"4712"'),
        ("args.card.number:12", "args.card.number:13"),
        ("tag:x4711", "tag:x4712"),
        ("x4711", "x4712"),
        ('meta.copy:"4711"', 'meta.copy:"4712"'),
    ]:
        assert await listed(visitor, right) == await listed(visitor, wrong) == []
        assert await listed(visitor, f"-{right}") == await listed(visitor, f"-{wrong}") == [2, 1]
    assert await listed(visitor, "args.amount:5") == [1]
    assert "4711" not in (await visitor.get("/jobs")).text


@pytest.mark.parametrize(
    ("query", "hidden"),
    [("args.pin:1", "args"), ("-args.pin:1", "args"), ("meta.a:1", "meta"), ("meta.return.a:1", "recorded")],
)
async def test_hidden_fields_cannot_be_searched(oban: Oban, query: str, hidden: str) -> None:
    await insert_rows(oban.engine, *[row("available", args={"pin": 1})])
    async with visiting(oban, Access.read_only("ada", hidden=[hidden])) as visitor:
        page = await visitor.page(f"/jobs?q={query}", status=400)
        assert "hidden from you" in page.css_first("main").text()  # type: ignore[union-attr]
        assert not page.css("#rows")


async def suggested(visitor: Visitor, text: str) -> list[str]:
    response = await visitor.http.get("/jobs/suggest", params={"q": text})
    return [each["text"] for each in response.json()["suggestions"]]


@pytest.mark.usefixtures("jobs")
async def test_suggestions_complete_keys_and_values(visitor: Visitor) -> None:
    assert await suggested(visitor, "st") == ["state:"]
    assert await suggested(visitor, "queue:mail -st") == ["queue:mail -state:"]
    assert await suggested(visitor, "state:re") == ["state:retryable"]
    assert await suggested(visitor, "state:available,re") == ["state:available,retryable"]
    assert await suggested(visitor, "queue:s") == ["queue:slow"]
    assert await suggested(visitor, "worker:email") == ["worker:app.SendEmail"]
    assert await suggested(visitor, "tag:v") == ["tag:vip"]
    assert await suggested(visitor, "args.cust") == ["args.customer.id:", "args.customer.name:"]
    assert await suggested(visitor, 'x"') == []


async def test_suggestions_do_not_tell_what_is_redacted_or_hidden(oban: Oban, visitor: Visitor) -> None:
    await oban.enqueue(Pay.new({"pin": "4711", "card": {"number": 12}}, tags=["x4711"]))
    assert "4711" not in str(await suggested(visitor, "tag:"))
    async with visiting(oban, Access.read_only("ada", hidden=["args"])) as other:
        assert await suggested(other, "args.") == []
        assert await suggested(other, "arg") == []


async def test_hostile_values_are_text(visitor: Visitor, oban: Oban) -> None:
    evil = "<script>alert(1)</script>\u202e"
    await insert_rows(
        oban.engine,
        *[
            row(
                "retryable",
                worker=evil,
                queue=evil,
                tags=[evil] * 50,
                args={evil: evil},
                errors=[{"error": evil}],
            )
        ],
    )
    text = (await visitor.get("/jobs")).text
    assert "<script>alert" not in text
    assert (await visitor.http.get("/jobs", params={"q": evil})).status_code == 200
