"""`migration.upgrade` and `migration.downgrade`, called from Python."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.operations import Operations
from sqlalchemy import URL, Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from oban import Oban, migration
from oban.errors import ConfigError, UnsupportedDatabase
from tests.support.schema import FIRST, TABLES, VERSION_TABLE, is_empty, render, sync_engine, tables

MADE = TABLES | {VERSION_TABLE}


@pytest.mark.parametrize("form", ["url", "text", "sync url"])
def test_a_url_is_accepted(empty_url: URL, form: str) -> None:
    target: Any = {"url": empty_url, "text": render(empty_url), "sync url": sync_engine(empty_url).url}[form]
    migration.upgrade(target)
    assert tables(empty_url) == MADE
    migration.downgrade(target)
    assert is_empty(empty_url)


def test_an_engine_is_accepted(empty_url: URL) -> None:
    engine = sync_engine(empty_url)
    migration.upgrade(engine)
    assert tables(empty_url) == MADE
    migration.upgrade(engine, revision="head")
    migration.downgrade(engine, revision="0001")
    assert tables(empty_url) == FIRST | {VERSION_TABLE}
    migration.downgrade(engine)
    assert is_empty(empty_url)


def test_with_a_connection_the_caller_commits(empty_url: URL) -> None:
    engine = sync_engine(empty_url)
    with engine.connect() as connection:
        migration.upgrade(connection)
        connection.commit()
        assert tables(empty_url) == MADE
        migration.downgrade(connection)
        connection.commit()
    assert is_empty(empty_url)


def test_a_failure_leaves_nothing(empty_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    # Also on SQLite, whose driver does not begin a transaction automatically.
    monkeypatch.setattr(Operations, "create_index", None)
    with pytest.raises(TypeError):
        migration.upgrade(empty_url)
    assert is_empty(empty_url)


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("prefix", [None, "jobs"])
def test_a_connection_that_rolls_back_leaves_nothing(
    postgresql_schema_urls: tuple[URL, URL], begun: bool, prefix: str | None
) -> None:
    # PostgreSQL only, where DDL is transactional.
    url, _ = postgresql_schema_urls
    with sync_engine(url).connect() as connection:
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS jobs"))
        connection.commit()
        if begun:
            connection.begin()
        migration.upgrade(connection, prefix=prefix)
        connection.rollback()
    assert is_empty(url, prefix)


async def test_it_works_within_a_running_event_loop(empty_url: URL) -> None:
    migration.upgrade(empty_url)
    assert tables(empty_url) == MADE
    migration.downgrade(empty_url)
    assert is_empty(empty_url)


async def test_an_async_connection_is_accepted_through_run_sync(empty_url: URL) -> None:
    engine = create_async_engine(empty_url)
    async with engine.begin() as connection:
        await connection.run_sync(migration.upgrade)
    assert tables(empty_url) == MADE
    async with engine.begin() as connection:
        await connection.run_sync(migration.downgrade)
    assert is_empty(empty_url)
    await engine.dispose()


async def test_it_works_in_another_thread(empty_url: URL) -> None:
    await asyncio.to_thread(migration.upgrade, empty_url)
    async with Oban(empty_url, queues={"default": 1}) as oban:
        assert await oban.list_jobs() == []


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("mysql://someone:secret@localhost/db", UnsupportedDatabase),
        ("postgresql+psycopg2cffi://someone:secret@localhost/db", UnsupportedDatabase),
        ("what is this secret", ConfigError),
        ("", ConfigError),
    ],
)
def test_an_unusable_url_is_refused_without_its_password(url: str, error: type[Exception]) -> None:
    with pytest.raises(error) as raised:
        migration.upgrade(url)
    assert "secret" not in str(raised.value)


async def test_an_error_within_a_running_loop_is_raised_to_the_caller(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="unable to open database file"):
        migration.upgrade(f"sqlite+aiosqlite:///{tmp_path}/no/such/folder/x.db")


ENV = """
from alembic import context
with context.config.attributes["engine"].begin() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
REVISION = """
import sqlalchemy as sa
from alembic import op
from oban import migration
revision, down_revision = "mine", None

def upgrade():
    op.create_table("before", sa.Column("id", sa.Integer()))
    migration.upgrade(op)
    op.create_table("after", sa.Column("id", sa.Integer()))

def downgrade():
    op.drop_table("after")
    migration.downgrade(op.get_bind())
    op.drop_table("before")
"""


def test_a_revision_of_the_application_can_call_it(empty_url: URL, tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(ENV)
    (tmp_path / "versions" / "mine.py").write_text(REVISION)
    config = Config()
    config.set_main_option("script_location", str(tmp_path))
    config.set_main_option("path_separator", "os")
    engine = sync_engine(empty_url)
    config.attributes["engine"] = engine
    command.upgrade(config, "head")
    assert tables(empty_url) == MADE | {"before", "after", "alembic_version"}
    with engine.connect() as connection:
        assert versions(connection, "alembic_version") == ["mine"]
        assert len(versions(connection, VERSION_TABLE)) == 1
    command.downgrade(config, "base")
    assert tables(empty_url) == {"alembic_version"}


def versions(connection: Connection, table: str) -> list[str]:
    return list(connection.scalars(text(f"SELECT version_num FROM {table}")))
