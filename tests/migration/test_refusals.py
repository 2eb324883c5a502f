"""If `oban install` or `oban uninstall` cannot work, it prints one line that says why, and exits with 1."""

from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from sqlalchemy import URL, text

from oban import migration
from oban.cli import main
from oban.errors import ObanError, SchemaMismatch
from tests.support.alembic_commands import here
from tests.support.schema import (
    TABLES,
    VERSION_TABLE,
    described,
    is_empty,
    render,
    run_script,
    sync_engine,
    tables,
)


def refused(command: str, url: URL, *options: str) -> str:
    """Run a command that must fail, and return the only line that it prints."""
    done = CliRunner().invoke(main, [command, "--database-url", render(url), *options])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit), done.exception
    (line,) = done.output.splitlines()
    return line


def execute(url: URL, *statements: str) -> None:
    with sync_engine(url).begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.fixture
def weak(bare_postgresql: URL) -> Iterator[URL]:
    """The database for a role that can read and write, but cannot create or own anything."""
    execute(
        bare_postgresql,
        "CREATE ROLE weak LOGIN",
        "REVOKE CREATE ON SCHEMA public FROM public",
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO weak",
    )
    yield bare_postgresql.set(username="weak")
    execute(bare_postgresql, "DROP OWNED BY weak", "DROP ROLE weak")


def test_a_missing_privilege_to_create_is_named(weak: URL) -> None:
    assert refused("install", weak) == (
        "Error: the role weak cannot create tables in the schema public:"
        " run GRANT USAGE, CREATE ON SCHEMA public TO weak as the schema's owner"
    )
    with pytest.raises(ObanError, match="GRANT USAGE, CREATE ON SCHEMA public TO weak"):
        migration.upgrade(sync_engine(weak))


def test_a_schema_that_the_role_cannot_create_is_named(weak: URL) -> None:
    assert refused("install", weak, "--prefix", "jobs") == (
        "Error: the schema jobs does not exist, and the role weak cannot create it: run CREATE SCHEMA jobs"
        " AUTHORIZATION weak as a role that can, or GRANT CREATE ON DATABASE"
        f" {weak.database} TO weak"
    )


def test_a_search_path_without_a_schema_is_named(weak: URL, bare_postgresql: URL) -> None:
    execute(bare_postgresql, "ALTER ROLE weak SET search_path = nowhere")
    assert refused("install", weak) == (
        "Error: no schema of the search_path, nowhere, exists and can be used by the role weak:"
        " set another search_path, or pass a prefix"
    )


@pytest.mark.parametrize("way", ["command", "script"])
def test_an_existing_schema_needs_no_right_to_create_schemas(
    weak: URL, bare_postgresql: URL, way: str
) -> None:
    if way == "command":
        execute(bare_postgresql, "CREATE SCHEMA jobs AUTHORIZATION weak")
        migration.upgrade(weak, prefix="jobs")
    else:
        execute(bare_postgresql, "CREATE SCHEMA jobs", "GRANT USAGE, CREATE ON SCHEMA jobs TO weak")
        run_script(weak, here("-x", "prefix=jobs", "upgrade", "head", "--sql", url=weak))
    assert tables(weak, "jobs") == TABLES | {VERSION_TABLE}
    # Every node may run the command when it starts, with fewer privileges.
    execute(bare_postgresql, "ALTER SCHEMA jobs OWNER TO CURRENT_USER")
    execute(bare_postgresql, "REVOKE CREATE ON SCHEMA jobs FROM weak", "GRANT USAGE ON SCHEMA jobs TO weak")
    assert migration.upgrade(weak, prefix="jobs") == []
    # The owner of the tables can drop them.
    assert migration.downgrade(weak, prefix="jobs") is True
    assert tables(bare_postgresql, "jobs") == set()
    execute(bare_postgresql, "COMMENT ON SCHEMA jobs IS 'still there'")


def test_tables_of_another_role_are_named(weak: URL, bare_postgresql: URL) -> None:
    migration.upgrade(bare_postgresql, revision="0002")
    execute(bare_postgresql, "GRANT CREATE ON SCHEMA public TO weak")
    assert "must be owner of" in refused("install", weak)
    assert "must be owner of" in refused("uninstall", weak)


def test_an_owner_of_older_tables_needs_the_privilege_to_create_as_well(
    weak: URL, bare_postgresql: URL
) -> None:
    migration.upgrade(bare_postgresql, revision="0004")
    owned = [*(f"TABLE {table}" for table in tables(bare_postgresql)), "FUNCTION oban_notify_insert()"]
    execute(bare_postgresql, *(f"ALTER {kind} OWNER TO weak" for kind in owned))
    before = described(bare_postgresql)
    assert refused("install", weak).endswith(
        ": run GRANT USAGE, CREATE ON SCHEMA public TO weak as the schema's owner"
    )
    assert described(bare_postgresql) == before
    execute(bare_postgresql, "GRANT CREATE ON SCHEMA public TO weak")
    migration.upgrade(weak)
    execute(bare_postgresql, "REVOKE CREATE ON SCHEMA public FROM weak")
    # The newest tables need nothing.
    assert migration.upgrade(weak) == []


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_a_newer_schema_is_left_alone(empty_url: URL, command: str) -> None:
    migration.upgrade(empty_url)
    execute(empty_url, f"UPDATE {VERSION_TABLE} SET version_num = '0009'")
    assert "made by a newer version of Oban (0009)" in refused(command, empty_url)
    assert tables(empty_url) == TABLES | {VERSION_TABLE}


def test_a_view_in_the_place_of_a_table_is_named(empty_url: URL) -> None:
    execute(empty_url, "CREATE VIEW oban_jobs AS SELECT 1 AS id")
    line = refused("install", empty_url)
    assert "oban_jobs" in line
    assert "already exists" in line
    assert "CREATE" not in line


@pytest.mark.parametrize("prefix", [None, "jobs"])
def test_an_enum_left_by_dropped_tables_is_created_again(
    postgresql_schema_urls: tuple[URL, URL], prefix: str | None
) -> None:
    left, fresh = postgresql_schema_urls
    for url in (left, fresh):
        migration.upgrade(url, prefix=prefix)
    dot = f"{prefix}." if prefix else ""
    execute(left, *(f"DROP TABLE {dot}{table}" for table in (*TABLES, VERSION_TABLE)))
    migration.upgrade(left, prefix=prefix)
    assert described(left, prefix) == described(fresh, prefix)


def test_an_enum_that_a_column_uses_is_left_alone(bare_postgresql: URL) -> None:
    execute(
        bare_postgresql,
        "CREATE TYPE oban_job_state AS ENUM ('mine')",
        "CREATE TABLE mine (state oban_job_state)",
    )
    assert "cannot drop type oban_job_state" in refused("install", bare_postgresql)
    assert tables(bare_postgresql) == {"mine"}


def test_an_enum_of_another_schema_is_ignored(postgresql_schema_urls: tuple[URL, URL]) -> None:
    url, _ = postgresql_schema_urls
    used = ("CREATE TYPE oban_job_state AS ENUM ('mine')", "CREATE TABLE mine (state oban_job_state)")
    execute(url, *used, "CREATE SCHEMA first")
    first = url.set(
        drivername="postgresql+psycopg", query={**url.query, "options": "-csearch_path=first,public"}
    )
    migration.upgrade(first)
    assert tables(url, "first") == TABLES | {VERSION_TABLE}
    assert tables(url, "public") == {"mine"}


def test_uninstall_refuses_tables_that_no_revision_made_until_they_are_adopted(empty_url: URL) -> None:
    engine = sync_engine(empty_url)
    migration.metadata.create_all(engine)
    line = refused("uninstall", empty_url)
    assert "oban_jobs" in line
    assert "run `oban install` first" in line
    assert tables(empty_url) == TABLES
    with pytest.raises(SchemaMismatch):
        migration.downgrade(engine)
    migration.upgrade(engine)
    assert migration.downgrade(engine) is True
    assert is_empty(empty_url)


def test_uninstall_says_that_nothing_is_installed(empty_url: URL) -> None:
    done = CliRunner().invoke(main, ["uninstall", "--database-url", render(empty_url)])
    assert (done.exit_code, done.output) == (0, "No Oban tables are installed.\n")
    assert is_empty(empty_url)
    assert migration.downgrade(empty_url) is False


def test_uninstall_says_that_nothing_is_installed_in_a_missing_schema(bare_postgresql: URL) -> None:
    assert migration.downgrade(bare_postgresql, prefix="nowhere") is False


def test_the_drivers_error_is_the_cause(empty_url: URL) -> None:
    execute(empty_url, "CREATE VIEW oban_jobs AS SELECT 1 AS id")
    with pytest.raises(ObanError) as raised:
        migration.upgrade(empty_url)
    assert "oban_jobs" in str(raised.value.__cause__)
