"""An upgrade of tables with jobs keeps every row, and need not stop those who use the tables."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError

from benchmarks import upgrade
from oban import migration
from tests.support.alembic_commands import here
from tests.support.databases import PostgreSQLFactory
from tests.support.schema import described, run_script, sync_engine

#: The revision before those that add tables, indexes and columns.
BEFORE = "0004"
JOBS = 400
RULE = '{"states": ["available"]}'
TIME = r"\d+-\d+-\d+T[\d:.]+Z"


@pytest.fixture
def older(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """A PostgreSQL database with the tables of the previous revision."""
    url = postgresql_factory.create(empty=True)
    migration.upgrade(url, revision=BEFORE)
    yield url
    postgresql_factory.drop(url)


def execute(url: URL, *statements: str) -> None:
    with sync_engine(url).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def without_order(url: URL) -> str:
    """Everything in a database but the SQL text of SQLite, in which added columns come last."""
    found = described(url)
    found.pop("sql", None)
    return str(found)


def test_jobs_in_all_states_stay_as_they_are_on_the_way_up_and_down(empty_url: URL, url: URL) -> None:
    names = [step.name for step in upgrade.measure(empty_url, JOBS)]
    assert names[:2] == ["up", "down"]
    assert names[-1] == "up again"
    assert without_order(empty_url) == without_order(url)
    with sync_engine(empty_url).connect() as connection:
        states = connection.execute(text("SELECT CAST(state AS text), count(*) FROM oban_jobs GROUP BY 1"))
        expected = dict.fromkeys(upgrade.STATES, JOBS // len(upgrade.STATES))
        assert {row[0]: row[1] for row in states} == expected


@pytest.mark.slow
def test_many_jobs_stay_as_they_are(empty_url: URL) -> None:
    # On PostgreSQL enough that a lock is seen, which SQLite has none of.
    rows = 60_000 if empty_url.get_backend_name() == "postgresql" else 15_000
    for step in upgrade.measure(empty_url, rows):
        if step.name == "up again":
            # The columns and the index were made beforehand.
            assert not step.locks.keys() & {"ShareLock", "AccessExclusiveLock"}


def test_each_revision_goes_up_and_down_one_by_one(empty_url: URL) -> None:
    made = {}
    revisions = [f"{number:04}" for number in range(1, 8)]
    for revision in revisions:
        migration.upgrade(empty_url, revision=revision)
        made[revision] = without_order(empty_url)
    for revision in reversed(revisions):
        migration.downgrade(empty_url, revision=revision)
        assert without_order(empty_url) == made[revision]
    migration.upgrade(empty_url)
    here("check", url=empty_url)


def rows_after(url: URL, revision: str) -> list[tuple[object, ...]]:
    """What the statements of the previous release leave, when their jobs are unique on newer tables."""
    migration.upgrade(url, revision=revision)
    script = (Path(__file__).parent / f"previous/{url.get_backend_name()}.sql").read_text()
    inserts, others = script.split("-- Everything is inserted.")
    run_script(url, inserts)
    if revision != BEFORE:
        execute(url, f"UPDATE oban_jobs SET unique_key = 'key of ' || id, unique_rule = '{RULE}'")
    run_script(url, others)
    columns = "id, state, queue, worker, attempt, max_attempts, priority, args, tags, errors, attempted_by"
    with sync_engine(url).connect() as connection:
        found = connection.exec_driver_sql(f"SELECT {columns} FROM oban_jobs ORDER BY id").all()
        if revision != BEFORE:
            unique = connection.exec_driver_sql(
                "SELECT id, unique_key, unique_rule FROM oban_jobs ORDER BY id"
            )
            kept = [(row.unique_key, str(row.unique_rule).replace("'", '"')) for row in unique]
            assert kept == [(f"key of {row.id}", RULE) for row in found]
    # Errors have the time at which they were recorded.
    return [tuple(re.sub(TIME, "", str(value)) for value in row) for row in found]


def test_statements_of_the_previous_release_do_the_same_on_newer_tables(empty_url: URL) -> None:
    newest = rows_after(empty_url, "head")
    assert {row[1] for row in newest} == {"available", "executing", "retryable", "completed", "cancelled"}
    for revision in ("0006", "0005", BEFORE):
        migration.downgrade(empty_url)
        assert rows_after(empty_url, revision) == newest, revision


def test_nothing_waits_after_the_statements_of_the_documentation(older: URL, lasting_jobs: URL) -> None:
    execute(older, *upgrade.BEFOREHAND)
    engine = sync_engine(older)
    with engine.connect() as writing, engine.connect() as upgrading:
        # A transaction that has read and written jobs, and does not end.
        writing.exec_driver_sql("INSERT INTO oban_jobs (worker) VALUES ('any')")
        upgrading.exec_driver_sql("SET lock_timeout = '2s'")
        upgrading.commit()
        migration.upgrade(upgrading)
        writing.exec_driver_sql("INSERT INTO oban_jobs (worker) VALUES ('any')")
        upgrading.commit()
        writing.commit()
    assert described(older) == described(lasting_jobs)
    here("check", url=older)


def test_without_them_an_upgrade_waits_for_a_transaction_that_has_used_jobs(older: URL) -> None:
    engine = sync_engine(older)
    with engine.connect() as reading, engine.connect() as upgrading:
        reading.exec_driver_sql("SELECT count(*) FROM oban_jobs")
        upgrading.exec_driver_sql("SET lock_timeout = '50ms'")
        upgrading.commit()
        with pytest.raises(DBAPIError, match="lock timeout"):
            migration.upgrade(upgrading)
        upgrading.rollback()
        reading.rollback()
        # What was interrupted has changed nothing, and is repeated.
        migration.upgrade(upgrading)
        upgrading.commit()
    here("check", url=older)


def test_an_index_that_could_not_be_built_is_built_again(older: URL) -> None:
    execute(older, *upgrade.BEFOREHAND)
    execute(
        older,
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'oban_jobs_unique_key_index'::regclass",
    )
    migration.upgrade(older)
    with sync_engine(older).connect() as connection:
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'oban_jobs_unique_key_index'::regclass"
        assert connection.scalar(text(valid)) is True


def test_a_column_that_is_there_is_not_added_again(empty_url: URL) -> None:
    migration.upgrade(empty_url, revision=BEFORE)
    kind = 'text COLLATE "C"' if empty_url.get_backend_name() == "postgresql" else "TEXT"
    execute(empty_url, f"ALTER TABLE oban_jobs ADD COLUMN unique_key {kind}")
    migration.upgrade(empty_url)
    here("check", url=empty_url)


def test_a_key_has_the_transaction_that_inserted_it(postgresql_with_jobs: URL) -> None:
    with sync_engine(postgresql_with_jobs).begin() as connection:
        connection.exec_driver_sql("INSERT INTO jobs.oban_unique_keys (key) VALUES ('ä'), ('B'), ('a')")
        rows = connection.exec_driver_sql(
            "SELECT key, turn = CAST(CAST(pg_current_xact_id() AS text) AS bigint)"
            " FROM jobs.oban_unique_keys ORDER BY key"
        )
        # Byte by byte, whatever the collation of the database is.
        assert [tuple(row) for row in rows] == [("B", True), ("a", True), ("ä", True)]
