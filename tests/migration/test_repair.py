"""`oban install` restores a trigger that another tool has dropped or changed."""

import pytest
from sqlalchemy import URL, text

from oban import migration
from tests.support.alembic_commands import here
from tests.support.schema import described, run_script, sync_engine

RESTORED = ["The trigger that announces inserted jobs was restored."]


@pytest.mark.parametrize("schema", ["public", "jobs"])
@pytest.mark.parametrize(
    "statement",
    [
        "DROP TRIGGER oban_notify_insert ON {schema}.oban_jobs",
        "DROP FUNCTION {schema}.oban_notify_insert() CASCADE",
        "CREATE OR REPLACE FUNCTION {schema}.oban_notify_insert() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RETURN NULL; END'",
    ],
)
def test_a_trigger_is_restored(postgresql_with_jobs: URL, schema: str, statement: str) -> None:
    prefix = None if schema == "public" else schema
    before = described(postgresql_with_jobs, schema)
    with sync_engine(postgresql_with_jobs).begin() as connection:
        connection.execute(text(statement.format(schema=schema)))
    assert described(postgresql_with_jobs, schema) != before
    assert migration.upgrade(postgresql_with_jobs, prefix=prefix) == RESTORED
    assert described(postgresql_with_jobs, schema) == before
    assert migration.upgrade(postgresql_with_jobs, prefix=prefix) == []


def test_a_disabled_trigger_stays_disabled(postgresql_with_jobs: URL) -> None:
    with sync_engine(postgresql_with_jobs).begin() as connection:
        connection.execute(text("ALTER TABLE oban_jobs DISABLE TRIGGER oban_notify_insert"))
    assert migration.upgrade(postgresql_with_jobs) == []
    with sync_engine(postgresql_with_jobs).begin() as connection:
        enabled = text("SELECT tgenabled = 'O' FROM pg_trigger WHERE tgname = 'oban_notify_insert'")
        assert sorted(connection.scalars(enabled)) == [False, True]


def test_what_is_in_place_is_not_restored(postgresql_with_jobs: URL, bare_postgresql: URL) -> None:
    assert migration.upgrade(postgresql_with_jobs) == []
    assert migration.upgrade(bare_postgresql, revision="0003") == []
    migration.downgrade(bare_postgresql, revision="0001")
    assert migration.upgrade(bare_postgresql) == []
    migration.metadata.drop_all(sync_engine(bare_postgresql))
    run_script(bare_postgresql, here("upgrade", "head", "--sql", url=bare_postgresql))
    assert migration.upgrade(bare_postgresql) == []


def test_a_role_that_cannot_restore_it_is_told(postgresql_with_jobs: URL) -> None:
    role = f"reader_of_{postgresql_with_jobs.database}"
    with sync_engine(postgresql_with_jobs).begin() as connection:
        connection.execute(text("DROP TRIGGER oban_notify_insert ON oban_jobs"))
        connection.execute(text(f"CREATE ROLE {role} LOGIN"))
        connection.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"))
    try:
        (message,) = migration.upgrade(postgresql_with_jobs.set(username=role))
        assert "is missing or changed, and stays so: " in message
    finally:
        with sync_engine(postgresql_with_jobs).begin() as connection:
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))
