"""Tables of oban-py become tables of this library with all of their rows. Other tables are left alone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import URL, text

from oban import Job, Oban, migration
from oban.cli import main
from oban.errors import SchemaMismatch
from tests.support import oban_py_tables
from tests.support.alembic_commands import here
from tests.support.databases import PostgreSQLFactory
from tests.support.schema import described, render, sync_engine, tables


@pytest.fixture
def url(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """An empty PostgreSQL database."""
    made = postgresql_factory.create(empty=True)
    yield made
    postgresql_factory.drop(made)


@pytest.fixture
def fresh(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """A database with tables of this library."""
    made = postgresql_factory.create()
    yield made
    postgresql_factory.drop(made)


def rows(url: URL, schema: str = "public") -> list[Any]:
    """All rows of oban-py, without the columns that only this library adds."""
    document = "to_jsonb(t) - 'unique_key' - 'unique_rule'"
    with sync_engine(url).connect() as connection:
        made = [
            connection.execute(text(f"SELECT {document} FROM {schema}.oban_{table} t ORDER BY 1")).all()
            for table in ("jobs", "leaders", "producers")
        ]
    assert [len(found) for found in made] == [8, 1, 1]
    return made


def shape(url: URL, schema: str | None = None) -> str:
    """Everything in a schema, without the function that only oban-py has."""
    found = described(url, schema)
    found["functions"] = [made for made in found["functions"] if "oban_count_estimate" not in made]
    return str(found).replace(f"{schema}.oban", "oban")


@pytest.mark.parametrize("release", oban_py_tables.RELEASES)
@pytest.mark.parametrize("prefix", [None, "jobs"])
def test_the_tables_of_oban_py_are_adopted_with_every_row(
    url: URL, fresh: URL, release: str, prefix: str | None
) -> None:
    oban_py_tables.install(url, release, prefix)
    before = rows(url, prefix or "public")
    said = migration.upgrade(url, prefix=prefix)
    assert said[0] == "Existing Oban tables were adopted, with every row."
    assert "oban_producers is now logged: it survives a crash." in said
    assert ("The version 1 in the comment on oban_jobs was removed." in said) == (release == "0.6.0")
    assert ("The index oban_jobs_staging_index was rebuilt." in said) == (release == "0.7.0")
    assert rows(url, prefix or "public") == before
    assert "No new upgrade operations" in here(*(["-x", f"prefix={prefix}"] * bool(prefix)), "check", url=url)
    assert shape(url, prefix) == shape(fresh)
    # A second run changes nothing, even if the version table is missing.
    after = described(url, prefix)
    assert migration.upgrade(url, prefix=prefix) == []
    with sync_engine(url).begin() as connection:
        connection.execute(text(f"DROP TABLE {prefix or 'public'}.oban_alembic_version"))
    assert migration.upgrade(url, prefix=prefix) == said[:1]
    assert described(url, prefix) == after


async def test_the_jobs_of_oban_py_run(url: URL) -> None:
    oban_py_tables.install(url)
    with sync_engine(url).begin() as connection:
        connection.execute(text("ALTER TABLE oban_jobs ADD COLUMN theirs text NOT NULL DEFAULT 'kept'"))
    migration.upgrade(url)
    async with Oban(url) as oban:
        jobs = await oban.list_jobs()
        assert [job.errors[0]["error"] for job in jobs] == ["bad"] * 8
        assert (jobs[0].args, jobs[0].tags) == ({"n": [1, None]}, ["a", "b"])
        job = await oban.enqueue(Job(worker="app.Worker"))
        assert job.id == 9
        assert await oban.cancel_job(job)
    with sync_engine(url).begin() as connection:
        assert set(connection.scalars(text("SELECT theirs FROM oban_jobs"))) == {"kept"}
        # A function that oban-py calls.
        assert connection.scalar(text("SELECT oban_count_estimate('available', 'default')")) is not None


def test_the_command_reports_the_adoption(url: URL) -> None:
    oban_py_tables.install(url)
    done = CliRunner().invoke(main, ["install", "--database-url", render(url)])
    assert done.exit_code == 0, done.output
    first, *middle, last = done.output.splitlines()
    assert first == "Existing Oban tables were adopted, with every row."
    assert "oban_leaders is now logged: it survives a crash." in middle
    assert "The index oban_jobs_staging_index was rebuilt." in middle
    assert last == "The Oban tables are in place."
    again = CliRunner().invoke(main, ["install", "--database-url", render(url)])
    assert again.output == "The Oban tables are in place.\n"
    assert rows(url)


def test_it_stops_at_the_requested_revision_and_continues_from_there(url: URL) -> None:
    oban_py_tables.install(url)
    assert migration.upgrade(url, revision="0001")
    assert "oban_queues" not in tables(url)
    assert migration.upgrade(url) == []
    here("check", url=url)


def test_it_is_one_transaction(url: URL) -> None:
    oban_py_tables.install(url)
    before = described(url)
    with sync_engine(url).connect() as connection:
        assert migration.upgrade(connection)
        connection.rollback()
    assert described(url) == before


def test_removing_the_tables_leaves_only_the_function_of_oban_py(url: URL) -> None:
    oban_py_tables.install(url)
    migration.upgrade(url)
    migration.downgrade(url)
    assert tables(url) == set()
    found = described(url)
    assert (found["types"], len(found["functions"])) == ([], 1)


#: Changes of the tables of oban-py, and the error messages.
UNKNOWN = [
    (
        "ALTER TABLE oban_jobs ALTER errors DROP DEFAULT, ALTER errors TYPE jsonb[] USING ARRAY[errors]",
        "Oban for Elixir, which stores errors as jsonb",
    ),
    (
        "ALTER TABLE oban_jobs ALTER tags DROP DEFAULT, ALTER tags TYPE jsonb USING to_jsonb(tags)",
        "oban_jobs.tags is jsonb NOT NULL, not text\\[\\] NOT NULL",
    ),
    ("ALTER TABLE oban_jobs ALTER meta DROP NOT NULL", "oban_jobs.meta is jsonb NULL, not jsonb NOT NULL"),
    ("ALTER TABLE oban_jobs DROP COLUMN meta", "oban_jobs has no column meta"),
    ("ALTER TABLE oban_producers DROP COLUMN node", "oban_producers has no column node"),
    ("ALTER TABLE oban_jobs ALTER id DROP IDENTITY", "oban_jobs.id is not GENERATED"),
    ("ALTER TABLE oban_leaders DROP CONSTRAINT oban_leaders_pkey", "name is not the primary key"),
    ("ALTER TYPE oban_job_state ADD VALUE 'archived'", "the states of oban_job_state are .*, archived"),
    ("DROP TABLE oban_leaders", "there is oban_jobs, oban_producers but no oban_leaders"),
    ("CREATE TABLE oban_queues (id int)", "oban_queues has no column limit"),
    ("CREATE TABLE oban_periodic (name text)", "oban_periodic has no column declared"),
    (
        "ALTER TABLE oban_jobs ADD theirs int; UPDATE oban_jobs SET theirs = 1;"
        " ALTER TABLE oban_jobs ALTER theirs SET NOT NULL",
        "oban_jobs.theirs is NOT NULL without a default",
    ),
    (
        "UPDATE oban_jobs SET priority = 10 WHERE id IN (3, 4)",
        r"2 rows of oban_jobs would break the constraint priority_range, .* with the id 3",
    ),
]


@pytest.mark.parametrize(("change", "problem"), UNKNOWN, ids=[problem for _, problem in UNKNOWN])
def test_unknown_tables_are_refused_and_left_unchanged(url: URL, change: str, problem: str) -> None:
    oban_py_tables.install(url)
    for statement in change.split(";"):
        with sync_engine(url).begin() as connection:
            connection.execute(text(statement))
    before = described(url)
    with pytest.raises(SchemaMismatch, match=problem) as raised:
        migration.upgrade(url)
    assert str(raised.value).endswith("nothing was changed")
    assert described(url) == before


def test_the_command_gives_the_reason_for_a_refusal(url: URL) -> None:
    oban_py_tables.install(url)
    with sync_engine(url).begin() as connection:
        connection.execute(text("UPDATE oban_jobs SET priority = 10 WHERE id = 5"))
    done = CliRunner().invoke(main, ["install", "--database-url", render(url)])
    assert done.exit_code == 1
    assert done.output.startswith("Error: a row of oban_jobs would break the constraint priority_range")


def test_concurrent_adoptions_take_turns(url: URL) -> None:
    oban_py_tables.install(url)
    assert sum(bool(sentences) for sentences in at_once(url)) == 1
    here("check", url=url)


def test_concurrent_installs_take_turns(empty_url: URL) -> None:
    assert at_once(empty_url) == [[]] * 4
    here("check", url=empty_url)


def at_once(url: URL) -> list[list[str]]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda _: migration.upgrade(url), range(4)))


def test_other_tables_on_sqlite_are_refused(sqlite_url: URL) -> None:
    with sync_engine(sqlite_url).begin() as connection:
        for table in ("jobs", "leaders", "producers"):
            connection.execute(text(f"CREATE TABLE oban_{table} (id integer PRIMARY KEY)"))
    with pytest.raises(
        SchemaMismatch, match=r"oban_jobs has no column args, attempt, .*; nothing was changed"
    ):
        migration.upgrade(sqlite_url)
    assert tables(sqlite_url) == {"oban_jobs", "oban_leaders", "oban_producers"}
