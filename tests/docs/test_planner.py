"""The statements of `docs/explanation/planner.md` show what the page says."""

import re
from collections.abc import Iterator

import pytest
from sqlalchemy import URL, Connection, create_engine, text

from tests.docs.explained import missing_files
from tests.docs.snippets import fenced
from tests.docs.stage import DOCS
from tests.support.databases import Factory

OPTIONS, OLDEST, FETCH = fenced("docs/explanation/planner.md", "sql")
(SHOWN,) = fenced("docs/explanation/planner.md", "text")
INDEX = "oban_jobs_state_queue_priority_scheduled_at_id_index"


@pytest.fixture
def factory(asyncpg_factory: Factory) -> Factory:
    """PostgreSQL, whose planner the page is about."""
    return asyncpg_factory


@pytest.fixture
def connection(url: URL) -> Iterator[Connection]:
    engine = create_engine(url.set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_the_table_has_the_settings_of_the_page(connection: Connection) -> None:
    assert connection.scalar(text(OPTIONS)) == SHOWN.splitlines()


def test_the_oldest_transactions_are_found(url: URL, connection: Connection) -> None:
    engine = create_engine(url.set(drivername="postgresql+psycopg"))
    with engine.connect() as reporting:
        mine = reporting.scalar(text("SELECT pg_backend_pid()"))
        found = connection.execute(text(OLDEST)).all()
    engine.dispose()
    assert mine in [each.pid for each in found]


def test_a_fetch_reads_little_more_than_the_rows_that_it_returns(connection: Connection) -> None:
    connection.exec_driver_sql(
        "INSERT INTO oban_jobs (worker) SELECT 'shop.SendReceipt' FROM generate_series(1, 5000)"
    )
    plan = "\n".join(connection.exec_driver_sql(FETCH).scalars())
    assert f"Index Scan using {INDEX}" in plan
    assert "Sort" not in plan
    (buffers,) = re.findall(r"Buffers: shared hit=(\d+)", plan)[:1]
    assert int(buffers) < 2 * 50


def test_the_files_that_the_page_names_exist() -> None:
    assert missing_files((DOCS / "explanation/planner.md").read_text()) == []
