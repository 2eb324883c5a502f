"""The database of a test run: its tables, copies in memory, and those of the processes of pytest-xdist."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, Column, Integer, MetaData, String, Table, inspect, text

from oban import Oban, SyncOban
from oban.errors import ConfigError, DatabaseUnavailable
from oban.testing.databases import for_worker, open_database
from tests.support.databases import PostgreSQLFactory
from tests.support.schema import render, sync_engine
from tests.support.workers import Noop


@pytest.fixture
def server(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """An empty database on PostgreSQL, whose URL names no driver."""
    url = postgresql_factory.create(empty=True)
    yield url.set(drivername="postgresql")
    for name in (url.database, f"{url.database}_gw7"):
        postgresql_factory.drop(url.set(database=name))


def orders(*columns: str) -> MetaData:
    metadata = MetaData()
    Table("orders", metadata, Column("id", Integer, primary_key=True), *(Column(n, String) for n in columns))
    return metadata


async def test_each_connection_begins_with_the_tables_and_nothing_in_them(empty_url: URL) -> None:
    database = open_database(render(empty_url))
    for _ in range(2):
        async with database.connect_async(orders("item")) as connection:
            assert await Oban(connection).list_jobs() == []
            await Oban(connection).enqueue(Noop.new())
            await connection.execute(text("INSERT INTO orders (item) VALUES ('lamp')"))
        with database.connect(orders("item")) as sync_connection:
            assert SyncOban(sync_connection).list_jobs() == []
            assert sync_connection.scalar(text("SELECT count(*) FROM orders")) == 0
    database.dispose()


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite+aiosqlite:///:memory:", "sqlite+pysqlite:///file::memory:?uri=true"]
)
async def test_databases_in_memory_are_copies_of_one_template(url: str) -> None:
    database = open_database(url)
    async with database.connect_async() as one, database.connect_async() as other:
        await Oban(one).enqueue(Noop.new())
        assert await Oban(other).list_jobs() == []
    with database.connect() as connection:
        assert SyncOban(connection).list_jobs() == []
    database.dispose()


def test_tables_in_a_schema(server: URL) -> None:
    database = open_database(server)
    with database.connect(prefix="jobs") as connection:
        SyncOban(connection, prefix="jobs").enqueue(Noop.new())
        assert inspect(connection).has_table("oban_jobs", schema="jobs")
    database.dispose()


def test_tables_that_are_older_than_the_models_are_an_error(empty_url: URL) -> None:
    database = open_database(empty_url)
    with database.connect(orders("item")):
        pass
    newer = orders("item", "price", "note")
    for _ in range(2):
        with pytest.raises(
            ConfigError, match=r"older than the models, and lack orders\.note, orders\.price;"
        ):
            database.connect(newer)
    database.dispose()


def test_a_server_that_cannot_be_reached_is_tried_once() -> None:
    database = open_database("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable) as first:
        database.connect()
    with pytest.raises(DatabaseUnavailable) as second:
        database.connect()
    assert second.value is first.value


@pytest.mark.parametrize("named", ["postgresql+asyncpg", "postgresql+psycopg2", "postgresql+psycopg"])
async def test_the_driver_is_replaced_if_it_is_of_the_other_kind(named: str, server: URL) -> None:
    database = open_database(server.set(drivername=named))
    async with database.connect_async() as connection:
        used = connection.engine.url.get_driver_name()
        assert used == named.partition("+")[2] or named == "postgresql+psycopg2"
    with database.connect() as sync_connection:
        used = sync_connection.engine.url.get_driver_name()
        assert used == named.partition("+")[2] or named == "postgresql+asyncpg"
    database.dispose()


def test_a_missing_driver_without_asyncio_is_named(server: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ImportError("No module named 'psycopg'")

    for driver in ("psycopg", "psycopg2", "pg8000"):
        dialect = server.set(drivername=f"postgresql+{driver}").get_dialect()
        monkeypatch.setattr(dialect, "import_dbapi", fail)
    database = open_database(server.set(drivername="postgresql+asyncpg"))
    with pytest.raises(ConfigError, match=r"pip install 'oban-sqlalchemy\[psycopg\]'"):
        database.connect()


def test_a_process_of_xdist_gets_a_database_that_is_created_once(server: URL) -> None:
    for _ in range(2):
        own = for_worker(render(server), "gw7")
        assert own == render(server.set(database=f"{server.database}_gw7"))
    database = open_database(own)
    with database.connect() as connection:
        assert connection.scalar(text("SELECT current_database()")) == f"{server.database}_gw7"
    database.dispose()


def test_a_role_that_may_not_create_the_database_is_told_so(server: URL) -> None:
    role = f"tester_of_{server.database}"
    with sync_engine(server).begin() as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN"))
    try:
        with pytest.raises(
            ConfigError, match=f"needs the database {server.database}_gw7, which does not exist"
        ):
            for_worker(render(server.set(username=role)), "gw7")
    finally:
        with sync_engine(server).begin() as connection:
            connection.execute(text(f"DROP ROLE {role}"))


def test_a_server_of_xdist_that_cannot_be_reached() -> None:
    with pytest.raises(DatabaseUnavailable, match="cannot reach the database"):
        for_worker("postgresql://nobody@127.0.0.1:1/none", "gw7")


def test_a_process_of_xdist_gets_a_file(tmp_path: Path) -> None:
    assert for_worker(f"sqlite:///{tmp_path}/test.db", "gw1") == f"sqlite:///{tmp_path}/test_gw1.db"
    uri = for_worker(f"sqlite:///file:{tmp_path}/test.db?cache=private&uri=true", "gw1")
    assert f"{tmp_path}/test_gw1.db?" in uri
    assert for_worker("sqlite://", "gw1") == "sqlite://"
