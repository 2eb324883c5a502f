"""The statements of `docs/explanation/leases.md` run, and its figures match the code."""

from uuid import uuid4

import pytest
from sqlalchemy import URL, text

from oban import Oban
from oban.config import Options
from oban.runner.services import refresher
from tests.docs.explained import missing_files
from tests.docs.snippets import fenced
from tests.docs.stage import Page, Snippet
from tests.support.databases import Factory
from tests.support.rows import insert_rows, row

PAGE = Page("explanation/leases.md")
HEARTBEATS, GUARDED = fenced("docs/explanation/leases.md", "sql")


@pytest.fixture
def factory(asyncpg_factory: Factory) -> Factory:
    """PostgreSQL, whose statements the page shows."""
    return asyncpg_factory


@PAGE.shows("lease=30")
async def test_a_node_stores_its_heartbeats_with_the_lease_of_the_page(url: URL, snippet: Snippet) -> None:
    names = {"engine": url, "Oban": Oban}
    exec(snippet.compiled(), names)
    oban = names["oban"]
    assert isinstance(oban, Oban)
    assert oban.options.heartbeat_interval == 7.5
    async with oban, oban.engine.connect() as connection:
        ((node, queue, beat_at),) = (await connection.execute(text(HEARTBEATS))).all()
    assert (node, queue) == (oban.options.node, "default")
    assert beat_at is not None


async def test_the_guard_refuses_an_owner_that_has_lost_the_job(oban: Oban) -> None:
    first, second = str(uuid4()), str(uuid4())
    await insert_rows(oban.engine, row("executing", id=7, attempt=2, attempted_by=["node", second]))
    async with oban.engine.begin() as connection:
        # The attempt of the first owner, another owner with the same number, and the current run.
        changed = [
            (await connection.execute(text(GUARDED), {"id": 7, "attempt": attempt, "owner": owner})).rowcount
            for attempt, owner in ((1, first), (2, first), (2, second), (2, second))
        ]
    assert changed == [0, 0, 1, 0]


def test_the_figures_of_the_page_match_the_code() -> None:
    page = " ".join(PAGE.text.split())
    options = Options()
    assert options.lease == 60
    quarters = (options.heartbeat_interval, options.rescue_interval, options.election_interval)
    assert quarters == (15, 15, 15)
    assert f"| {options.rescue_after:,.0f} s |" in page
    assert f"(`{options.statement_timeout:g} s`)" in page or f"({options.statement_timeout:g} s)" in page
    steady = options.lease / 4 + 2 * options.heartbeat_interval
    assert f"two intervals ({steady:g} s by default)" in page
    assert f"After {refresher.MAX_BLOCKED_LEASES} leases without an answer" in page
    soonest = options.lease - options.heartbeat_interval
    latest = options.lease + options.rescue_interval
    assert f"run again {soonest:g} to {latest:g} seconds after the death" in page


def test_every_snippet_is_run_by_a_test() -> None:
    assert PAGE.shown == PAGE.snippets


def test_the_tests_that_the_page_names_exist() -> None:
    assert missing_files(PAGE.text) == []
