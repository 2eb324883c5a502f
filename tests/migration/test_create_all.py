"""`metadata.create_all` creates a working schema, `upgrade` continues from it, and `drop_all` removes it."""

import pytest
from sqlalchemy import URL, Connection, MetaData, create_mock_engine, inspect, text
from sqlalchemy.ext.asyncio import create_async_engine

from oban import migration
from oban.models import metadata
from tests.support.alembic_commands import here
from tests.support.schema import TABLES, VERSION_TABLE, described, is_empty, run_script, sync_engine, tables


def without_sql(url: URL, schema: str | None = None) -> str:
    """Everything in a database, without the version table and the layout of SQLite's statements."""
    found = described(url, schema)
    found.pop(VERSION_TABLE, None)
    found.pop("sql", None)
    if "options" in found:
        found["options"] = [option for option in found["options"] if VERSION_TABLE not in option]
    return str(found).replace(f"{schema}.oban", "oban")


def test_it_creates_the_same_as_the_revisions(empty_url: URL, url: URL) -> None:
    engine = sync_engine(empty_url)
    metadata.create_all(engine)
    assert tables(empty_url) == TABLES
    assert without_sql(empty_url) == without_sql(url)
    # A second call changes nothing.
    metadata.create_all(engine)
    assert without_sql(empty_url) == without_sql(url)
    metadata.drop_all(engine)
    assert is_empty(empty_url)


def test_an_upgrade_recognises_it(empty_url: URL, url: URL) -> None:
    metadata.create_all(sync_engine(empty_url))
    with sync_engine(empty_url).begin() as connection:
        connection.execute(text("INSERT INTO oban_jobs (worker) VALUES ('any')"))
    assert migration.upgrade(empty_url) == ["Existing Oban tables were adopted, with every row."]
    assert without_sql(empty_url) == without_sql(url)
    here("check", url=empty_url)
    with sync_engine(empty_url).begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM oban_jobs")) == 1
    migration.downgrade(empty_url)
    assert is_empty(empty_url)


def test_an_upgrade_adds_what_an_older_version_did_not_create(empty_url: URL, url: URL) -> None:
    # As `create_all` of the version before revision 0005 has left them.
    migration.upgrade(empty_url, revision="0004")
    with sync_engine(empty_url).begin() as connection:
        connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
        connection.execute(text("INSERT INTO oban_jobs (worker) VALUES ('any')"))
    assert migration.upgrade(empty_url) == ["Existing Oban tables were adopted, with every row."]
    assert without_sql(empty_url) == without_sql(url)
    here("check", url=empty_url)
    with sync_engine(empty_url).begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM oban_jobs WHERE unique_key IS NULL")) == 1


def test_an_upgrade_creates_dropped_tables_again(empty_url: URL) -> None:
    migration.upgrade(empty_url)
    metadata.drop_all(sync_engine(empty_url))
    assert is_empty(empty_url)
    migration.upgrade(empty_url)
    here("check", url=empty_url)


async def test_it_works_on_an_async_connection(empty_url: URL, url: URL) -> None:
    engine = create_async_engine(empty_url)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    assert without_sql(empty_url) == without_sql(url)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)
    assert is_empty(empty_url)
    await engine.dispose()


def in_a_copy(connection: Connection) -> tuple[MetaData, Connection]:
    copied = MetaData()
    for table in metadata.tables.values():
        table.to_metadata(copied, schema="jobs")
    return copied, connection


def in_a_translation(connection: Connection) -> tuple[MetaData, Connection]:
    return metadata, connection.execution_options(schema_translate_map={None: "jobs"})


@pytest.mark.parametrize("way", [in_a_copy, in_a_translation])
def test_everything_is_created_in_a_schema(
    bare_postgresql: URL, way: object, postgresql_with_jobs: URL
) -> None:
    assert callable(way)
    with sync_engine(bare_postgresql).begin() as connection:
        connection.execute(text("CREATE SCHEMA jobs"))
        made, within = way(connection)
        made.create_all(within)
    assert is_empty(bare_postgresql, "public")
    assert without_sql(bare_postgresql, "jobs") == without_sql(postgresql_with_jobs, "jobs")
    migration.upgrade(bare_postgresql, prefix="jobs")
    here("-x", "prefix=jobs", "check", url=bare_postgresql)
    with sync_engine(bare_postgresql).begin() as connection:
        made, within = way(connection)
        made.drop_all(within)
    assert is_empty(bare_postgresql, "jobs")


def test_the_statements_can_be_printed(empty_url: URL, url: URL) -> None:
    printed: list[str] = []
    dialect = sync_engine(empty_url).dialect

    def dump(statement: object, *_: object, **__: object) -> None:
        printed.append(str(statement.compile(dialect=dialect)))  # type: ignore[attr-defined]

    metadata.create_all(create_mock_engine(sync_engine(empty_url).url, dump), checkfirst=False)
    run_script(empty_url, ";\n".join(printed) + ";")
    assert without_sql(empty_url) == without_sql(url)


def test_other_tables_are_left_alone(empty_url: URL) -> None:
    engine = sync_engine(empty_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num varchar(32))"))
    metadata.create_all(engine)
    metadata.drop_all(engine)
    assert inspect(engine).get_table_names() == ["alembic_version"]
