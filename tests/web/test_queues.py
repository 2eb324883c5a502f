"""The page of queues tells which queue is behind and why, whatever its name is."""

from datetime import UTC, datetime
from typing import Any

import pytest
from selectolax.lexbor import LexborHTMLParser, LexborNode
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from oban import Oban
from oban.models import Producer
from oban.web import Access, dashboard
from tests.support.heartbeats import ago, leader_row, producer_rows
from tests.support.rows import insert_rows, row
from tests.support.web import Visitor


async def send(engine: AsyncEngine, *producers: dict[str, Any], age: float = 2) -> None:
    async with engine.begin() as connection:
        await connection.execute(insert(Producer), producer_rows(*producers, age=age))


async def elect(engine: AsyncEngine, node: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(leader_row(node))


def on(node: str, queue: str, *, limit: int = 2, running: int = 0, **meta: Any) -> dict[str, Any]:
    facts = {"local_limit": limit, "running": list(range(running)), "lease": 60, **meta}
    return {"node": node, "queue": queue, "meta": facts}


def rows_of(page: LexborHTMLParser) -> dict[str, LexborNode]:
    found = {}
    for tr in page.css("table.queues tbody tr"):
        name = tr.css_first("th a")
        assert name is not None
        found[name.text().strip()] = tr
    return found


def why(page: LexborHTMLParser, queue: str) -> str:
    cell = rows_of(page)[queue].css_first("td.why")
    assert cell is not None
    return " ".join(cell.text().split())


async def test_each_queue_that_is_behind_says_why(oban: Oban, visitor: Visitor) -> None:
    old = ago(hours=1)
    await insert_rows(
        oban.engine,
        *(row(queue=name, scheduled_at=old) for name in ("held", "full", "short", "orphan", "free", "half")),
        row("executing", queue="full", attempted_at=ago(hours=2)),
        row("executing", queue="short", attempted_at=ago(seconds=1)),
        row("scheduled", queue="late", scheduled_at=ago(minutes=5)),
        row(queue="fresh", scheduled_at=ago(seconds=1)),
    )
    await send(
        oban.engine,
        on("web-1", "held", paused=True),
        on("web-1", "full", limit=1, running=1),
        on("web-1", "short", limit=1, running=1),
        *(on("web-1", queue) for queue in ("free", "late", "fresh")),
        *(on("web-1", "half"), on("web-2", "half", paused=True)),
    )
    await oban.pause_queue("held")
    page = await visitor.page("/queues")
    assert why(page, "held").startswith("Paused by a command 20")
    assert why(page, "full") == "Busy: the limit is 1, its job has run for 2 hours"
    assert why(page, "short").startswith("Busy: the limit is 1, by short jobs: the limit is too low")
    assert why(page, "orphan") == "No node runs it"
    assert why(page, "free") == "Its nodes have free places, but do not fetch these jobs"
    assert why(page, "half") == "Paused on 1 of 2 nodes"
    assert why(page, "late") == "No node leads the instance: 1 job is due but not available yet"
    assert why(page, "fresh") == ""
    assert [*rows_of(page)][-1] == "fresh"
    await elect(oban.engine, "web-1")
    assert why(await visitor.page("/queues"), "late") == "1 job is due but not available yet"


async def test_a_queue_whose_nodes_are_dead_says_so(oban: Oban, visitor: Visitor) -> None:
    await insert_rows(oban.engine, row(queue="mail", scheduled_at=ago(hours=1)))
    await send(oban.engine, on("web-1", "mail"), age=3600)
    assert why(await visitor.page("/queues"), "mail") == "The node that ran it is dead: web-1"


async def test_the_rate_and_the_time_to_drain_come_from_the_last_minute(oban: Oban, visitor: Visitor) -> None:
    done = [row("completed", queue="mail", completed_at=ago(seconds=5)) for _ in range(30)]
    waiting = [row(queue="mail", scheduled_at=ago(minutes=3)) for _ in range(60)]
    await insert_rows(oban.engine, *done, *waiting)
    await send(oban.engine, on("web-1", "mail"))
    cells = [cell.text().strip() for cell in rows_of(await visitor.page("/queues"))["mail"].css("td.number")]
    assert cells[-1] == "30"
    assert "~2m00s" in (await visitor.page("/queues/one?name=mail")).text()


async def test_a_command_is_shown_before_the_node_confirms_it(oban: Oban, visitor: Visitor) -> None:
    await send(oban.engine, on("web-1", "mail"))
    response = await visitor.post("/queues/pause", {"queue": "mail"})
    assert (response.status_code, response.headers["location"]) == (303, "/queues")
    page = await visitor.page("/queues")
    assert page.css_first(".flash").text().strip() == "mail is paused on all nodes."  # type: ignore[union-attr]
    text = rows_of(page)["mail"].text()
    assert "paused" in text
    assert "pending" in text


@pytest.mark.either_database
@pytest.mark.parametrize("node", [None, "web-2"])
async def test_each_command_is_stored_for_all_nodes_or_for_one(
    oban: Oban, visitor: Visitor, node: str | None
) -> None:
    common = {"queue": "mail", "back": "queue", **({"node": node} if node else {})}
    for action, more, expected in (
        ("pause", {}, (None, None, True)),
        ("resume", {}, (None, None, False)),
        ("scale", {"limit": "7"}, (None, 7, False)),
        ("scale", {"configured": "1", "limit": ""}, (None, 0, False)),
        ("start", {"limit": "3", "paused": "1"}, (True, 3, True)),
        ("stop", {}, (False, 3, True)),
    ):
        response = await visitor.post(f"/queues/{action}", {**common, **more})
        assert (response.status_code, response.headers["location"]) == (303, "/queues/one?name=mail")
        [stored] = await oban.list_queue_settings("mail")
        assert (stored.running, stored.limit, stored.paused) == expected
        assert stored.node == node


async def test_all_queues_are_paused_and_resumed(oban: Oban, visitor: Visitor) -> None:
    for action, paused in (("pause-all", True), ("resume-all", False)):
        assert (await visitor.post(f"/queues/{action}")).status_code == 303
        [stored] = await oban.list_queue_settings()
        assert (stored.queue, stored.node, stored.paused) == ("*", None, paused)


@pytest.mark.either_database
@pytest.mark.parametrize(
    ("action", "form"),
    [
        ("scale", {"queue": "mail", "limit": "0"}),
        ("scale", {"queue": "mail", "limit": "many"}),
        ("scale", {"queue": "mail", "limit": "9" * 400}),
        ("start", {"queue": "mail", "limit": "10001"}),
        ("pause", {"queue": "*"}),
        ("resume", {"queue": "*"}),
        ("stop", {"queue": "a/b"}),
        ("pause", {"queue": ""}),
        ("pause", {}),
        ("pause", {"queue": "mail", "node": "no\x00de"}),
        ("pause", {"queue": "x" * 4096}),
    ],
)
async def test_what_the_library_refuses_changes_nothing_and_is_said(
    oban: Oban, visitor: Visitor, action: str, form: dict[str, str]
) -> None:
    response = await visitor.post(f"/queues/{action}", form)
    assert response.status_code == 303
    page = await visitor.page("/queues")
    flash = page.css_first(".flash.failed")
    assert flash is not None
    assert flash.text().strip().startswith("Nothing was changed:")
    assert await oban.list_queue_settings() == []


NAMES = (
    *(
        "a/b/../c",
        "*",
        "q?x=1&y#z",
        "%2F",
        " ",
        "\u202eright to left",
        "<script>alert(1)</script>",
        "x" * 4096,
    ),
)


async def test_a_queue_of_any_name_has_a_page(oban: Oban, visitor: Visitor) -> None:
    await insert_rows(oban.engine, *(row(queue=name, scheduled_at=ago(hours=1)) for name in NAMES))
    page = await visitor.page("/queues")
    assert not page.css("script:not([src])")
    links = [str(link.attributes["href"]) for link in page.css("table.queues tbody th a")]
    assert len(links) == len(NAMES)
    for link in links:
        detail = await visitor.page(link)
        assert len(detail.css("section table tbody tr")) == 1
        assert not detail.css("script:not([src])")


async def test_a_queue_of_which_all_jobs_have_ended_has_a_page(oban: Oban, visitor: Visitor) -> None:
    await insert_rows(oban.engine, row("discarded", queue="old"))
    page = await visitor.page("/queues/one?name=old")
    assert page.css_first("h1 .badge").text() == "idle"  # type: ignore[union-attr]


@pytest.mark.either_database
@pytest.mark.parametrize("name", ["none", "", "\x00", "x" * 3000])
async def test_a_queue_that_does_not_exist_is_not_found(visitor: Visitor, name: str) -> None:
    response = await visitor.http.get("/queues/one", params={"name": name})
    assert response.status_code == 404
    assert len(response.text) < 10_000


async def test_the_chart_counts_the_jobs_of_this_queue_by_time(oban: Oban, visitor: Visitor) -> None:
    now = datetime.now(UTC)
    await insert_rows(
        oban.engine,
        *(row("completed", queue="mail", completed_at=now) for _ in range(3)),
        row("completed", queue="mail", completed_at=ago(minutes=30)),
        row("completed", queue="media", completed_at=now),
        row("completed", queue="mail", completed_at=ago(hours=3)),
    )
    page = await visitor.page("/queues/one?name=mail")
    titles = [title.text() for title in page.css("svg.bars title")]
    assert len(titles) == 30
    numbers = [int(title.split(": ")[1].split()[0]) for title in titles]
    assert sum(numbers) == 4
    assert sum(number > 0 for number in numbers) in (2, 3)


async def test_a_search_and_an_order_choose_the_rows(oban: Oban, visitor: Visitor) -> None:
    await insert_rows(oban.engine, *(row(queue=name) for name in ("b_mail", "a_mail", "media")))
    assert [*rows_of(await visitor.page("/queues?q=MAIL&sort=name"))] == ["a_mail", "b_mail"]
    page = await visitor.page("/queues?q=nothing&sort=other")
    assert "No queue has this in its name." in page.text()


@pytest.mark.either_database
async def test_a_user_without_the_permission_sees_queues_and_commands_none(oban: Oban) -> None:
    await insert_rows(oban.engine, row(queue="mail"))
    app = dashboard(oban, authorize=lambda _: Access.read_only("ada"))
    async with Visitor(app) as visitor:
        for action in ("pause", "resume", "start", "stop", "scale", "pause-all", "resume-all"):
            response = await visitor.post(f"/queues/{action}", {"queue": "mail", "limit": "3"})
            assert response.status_code == 403
        for path in ("/queues", "/queues/one?name=mail"):
            assert not (await visitor.page(path)).css("main form[method=post]")
    await app.aclose()
    assert await oban.list_queue_settings() == []
