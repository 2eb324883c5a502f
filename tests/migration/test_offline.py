"""A script that `--sql` prints creates and removes the same schema as the command."""

import pytest
from sqlalchemy import URL

from tests.support.alembic_commands import alembic, here, succeeds
from tests.support.schema import described, is_empty, run_script, sync_engine


@pytest.fixture(params=["async", "sync"])
def target(request: pytest.FixtureRequest, empty_url: URL) -> URL:
    """The URL of `empty_url`, with an async and with a sync driver."""
    return empty_url if request.param == "async" else sync_engine(empty_url).url


def test_the_script_creates_the_same_as_the_command(url: URL, empty_url: URL, target: URL) -> None:
    run_script(empty_url, succeeds("upgrade", "head", "--sql", url=target))
    assert described(empty_url) == described(url)
    here("check", url=target)


def test_the_script_removes_everything(url: URL) -> None:
    run_script(url, here("downgrade", "head:base", "--sql", url=url))
    assert is_empty(url)


def test_a_script_can_be_printed_without_a_database() -> None:
    nowhere = URL.create("postgresql+asyncpg", host="192.0.2.1", database="nowhere")
    script = here("upgrade", "head", "--sql", url=nowhere)
    assert "CREATE TABLE oban_jobs" in script


def test_the_script_for_a_schema_fills_that_schema(
    postgresql_schema_urls: tuple[URL, URL],
) -> None:
    by_command, by_script = postgresql_schema_urls
    here("-x", "prefix=jobs", "upgrade", "head", url=by_command)
    run_script(by_script, here("-x", "prefix=jobs", "upgrade", "head", "--sql", url=by_script))
    assert described(by_script, "jobs") == described(by_command, "jobs")
    assert is_empty(by_script, "public")


def test_the_script_for_a_schema_empties_that_schema(postgresql_with_jobs: URL) -> None:
    script = here("-x", "prefix=jobs", "downgrade", "head:base", "--sql", url=postgresql_with_jobs)
    run_script(postgresql_with_jobs, script)
    assert is_empty(postgresql_with_jobs, "jobs")
    assert not is_empty(postgresql_with_jobs, "public")


def test_a_script_for_a_schema_is_refused_on_sqlite() -> None:
    done = alembic("-x", "prefix=jobs", "upgrade", "head", "--sql", url=URL.create("sqlite", database="x.db"))
    assert done.returncode != 0
    assert "no schemas" in done.stderr
