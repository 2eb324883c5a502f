"""The page of nodes tells what each node is and runs, and what becomes of the jobs of a dead one."""

import platform
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import URL, insert
from sqlalchemy.ext.asyncio import AsyncEngine

from oban import Oban, __version__
from oban.models import Producer
from oban.web import Access, dashboard
from tests.support.heartbeats import ago, leader_row, producer_rows
from tests.support.rows import insert_rows, row
from tests.support.waiting import eventually
from tests.support.web import Visitor


async def send(engine: AsyncEngine, *producers: dict[str, Any], age: float = 2) -> None:
    async with engine.begin() as connection:
        await connection.execute(insert(Producer), producer_rows(*producers, age=age))


def cells(page: Any) -> dict[str, str]:
    return {
        tr.css_first("th").text().strip(): " ".join(tr.text().split())
        for tr in page.css("table.nodes tbody tr")
    }


async def test_without_nodes_the_page_says_how_to_start_one(visitor: Visitor) -> None:
    assert "oban start" in (await visitor.page("/nodes")).css_first(".empty").text()  # type: ignore[union-attr]


async def test_a_live_node_tells_its_versions_and_its_queues(url: URL, visitor: Visitor) -> None:
    async with Oban(url, queues={"mail": 3}, node="web-1") as node:
        await eventually(node.list_nodes)
        text = cells(await visitor.page("/nodes"))["web-1"]
        assert __version__ in text
        assert platform.python_version() in text
        assert "mail 0 of 3" in text
        assert "web-1" in (await visitor.page("/nodes/one?name=web-1")).css_first("h1").text()  # type: ignore[union-attr]


async def test_a_node_that_tells_nothing_is_shown_with_unknown_values(oban: Oban, visitor: Visitor) -> None:
    await send(oban.engine, {"node": "old", "meta": {}})
    assert cells(await visitor.page("/nodes"))["old"].count("unknown") == 4
    await visitor.page("/nodes/one?name=old")


async def test_a_dead_node_comes_first_with_what_becomes_of_its_jobs(oban: Oban, visitor: Visitor) -> None:
    dead = {"node": "web-2", "meta": {"lease": 1}, "updated_at": ago(hours=1)}
    await send(oban.engine, {"node": "web-1", "meta": {"lease": 600}}, dead)
    page = await visitor.page("/nodes")
    assert [*cells(page)] == ["web-2", "web-1"]
    assert "none does now" in page.css_first(".notice").text()  # type: ignore[union-attr]
    async with oban.engine.begin() as connection:
        await connection.execute(leader_row("web-1"))
    page = await visitor.page("/nodes")
    assert "The leader rescues their jobs within" in page.css_first(".notice").text()  # type: ignore[union-attr]
    assert "leader" in cells(page)["web-1"]


async def test_the_page_of_a_node_lists_what_it_runs_with_the_progress(oban: Oban, visitor: Visitor) -> None:
    now = datetime.now(UTC)
    progress = {"progress": {"done": 3, "total": 10, "attempt": 1, "at": now.isoformat()}}
    [one] = await insert_rows(oban.engine, row("executing", attempted_at=ago(minutes=2), meta=progress))
    await send(oban.engine, {"node": "a/b", "meta": {"running": [one, 0, -5, 2**62], "local_limit": 5}})
    page = await visitor.page("/nodes/one?name=a/b")
    [found] = page.css("table.running tbody tr")
    assert found.css_first("a").attributes["href"] == f"/jobs/{one}"  # type: ignore[union-attr]
    assert found.css_first("progress") is not None


async def test_progress_is_not_shown_to_a_user_who_does_not_see_meta(oban: Oban) -> None:
    progress = {"progress": {"done": 3, "total": 10, "attempt": 1, "at": datetime.now(UTC).isoformat()}}
    [one] = await insert_rows(oban.engine, row("executing", attempted_at=ago(minutes=2), meta=progress))
    await send(oban.engine, {"node": "n", "meta": {"running": [one], "local_limit": 5}})
    app = dashboard(oban, authorize=lambda _: Access.read_only("ada", hidden=["meta"]))
    async with Visitor(app) as visitor:
        page = await visitor.page("/nodes/one?name=n")
        assert len(page.css("table.running tbody tr")) == 1
        assert page.css_first("progress") is None
    await app.aclose()


@pytest.mark.either_database
async def test_names_from_other_programs_are_shown_as_text(oban: Oban, visitor: Visitor) -> None:
    names = ["<script>alert(1)</script>", "\u202eright to left", "x" * 4096, "a b/c?d"]
    await send(
        oban.engine, *({"node": name, "queue": name, "meta": {"workers": [name, 5]}} for name in names)
    )
    page = await visitor.page("/nodes")
    assert not page.css("script:not([src])")
    links = [str(link.attributes["href"]) for link in page.css("table.nodes tbody th a")]
    assert len(links) == len(names)
    for link in links:
        await visitor.page(link)


async def test_a_node_that_is_gone_is_not_found(visitor: Visitor) -> None:
    assert (await visitor.get("/nodes/one?name=gone")).status_code == 404
