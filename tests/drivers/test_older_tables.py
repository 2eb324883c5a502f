"""On tables of an older version, a node and a client say so, and what to do."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError

from oban import Job, Oban, dialects, migration
from oban.database import schema_errors
from oban.errors import SchemaMissing, SchemaOutdated
from oban.models import metadata
from tests.drivers.callers import DRIVERS, Application, factory_for
from tests.support.schema import TABLES

#: Before the first revision that `schema_errors` knows.
OLDER = "0004"
COLUMN = r"column oban_jobs\.unique_\w+, which revision 0005 adds"


@pytest.fixture(params=DRIVERS)
async def application(request: pytest.FixtureRequest) -> AsyncIterator[Application]:
    """An application on tables of the older revision."""
    factory = factory_for(request.param, request)
    url = factory.create(empty=True)
    migration.upgrade(url, revision=OLDER)
    made = Application(request.param, url)
    yield made
    await made.oban.stop()
    await made.dispose()
    factory.drop(url)


async def test_a_client_says_so_at_its_first_call(application: Application) -> None:
    oban = application.oban
    calls: list[Any] = [
        lambda: oban.enqueue(Job(worker="any")),
        lambda: oban.get_job(1),
        lambda: oban.list_jobs(),
    ]
    for call in calls:
        with pytest.raises(SchemaOutdated, match=f"older version of Oban: there is no {COLUMN}") as caught:
            await call()
        assert isinstance(caught.value, SchemaMissing)
        assert re.search("; update them with `oban install --database-url '[^']+'`", str(caught.value))
        assert str(application.url.database) in str(caught.value)
        assert caught.value.__suppress_context__
    async with application.session() as transaction:
        with pytest.raises(SchemaOutdated, match=COLUMN):
            await oban.enqueue(Job(worker="any"), session=transaction.own)
    migration.upgrade(application.url)
    assert (await oban.enqueue(Job(worker="any"))).id


#: Statements of an application or of Oban, and what their errors say about the tables.
STATEMENTS = {
    "SELECT entry FROM oban_periodic": "no table oban_periodic, which revision 0006 adds; .* --prefix jobs",
    "DELETE FROM oban_ticks": "no table oban_ticks, which revision 0006 adds",
    "DELETE FROM oban_attempts": "no table oban_attempts, which revision 0007 adds",
    "INSERT INTO oban_unique_keys (key) VALUES ('a')": "no table oban_unique_keys, which revision 0005 adds",
    "SELECT unique_key FROM oban_jobs": "no column oban_jobs.unique_key, which revision 0005 adds",
    "UPDATE oban_jobs SET unique_rule = NULL": "no column oban_jobs.unique_rule",
    "INSERT INTO oban_jobs (worker, unique_key) VALUES ('a', 'b')": "no column oban_jobs.unique_key",
    "SELECT oban_jobs.unique_key FROM oban_jobs": "no column oban_jobs.unique_key",
    "DELETE FROM oban_nothing": "there are no Oban tables in the schema jobs",
    "SELECT nothing AS unique_key FROM oban_jobs": None,
    "SELECT n FROM oban_jobs WHERE worker = 'unique_key'": None,
    "SELECT 1 / 0 AS oban_ticks FROM oban_jobs WHERE queue = 'unique_key' OR nothing": None,
}


async def test_the_error_of_a_statement_tells_what_is_missing(application: Application) -> None:
    dialect = dialects.by_name(application.url.get_backend_name())
    async with application.session() as transaction:
        for sql, expected in STATEMENTS.items():
            with pytest.raises(DBAPIError) as caught:
                await transaction.execute(text(sql))
            await transaction.rollback()
            found = schema_errors.explain(caught.value, dialect, application.url, "jobs")
            if expected is None:
                assert found is None
            else:
                assert re.search(expected, str(found)), (sql, found)
                assert isinstance(found, SchemaOutdated) == ("older version" in str(found))


@pytest.mark.parametrize(("revision", "missing"), [("0004", "0005"), ("0005", "0006"), ("0006", "0007")])
async def test_a_node_does_not_start(empty_url: URL, revision: str, missing: str) -> None:
    migration.upgrade(empty_url, revision=revision)
    oban = Oban(empty_url, queues={"default": 1})
    with pytest.raises(SchemaOutdated, match=f"older version of Oban: .* which revision {missing} adds"):
        await oban.start()
    migration.upgrade(empty_url)
    await oban.start()
    await oban.stop()


def test_every_table_and_column_that_a_later_revision_adds_is_known() -> None:
    older = {"oban_jobs", "oban_leaders", "oban_producers", "oban_queues"}
    columns = {
        column.name for column in metadata.tables["oban_jobs"].columns if column.name.startswith("unique")
    }
    assert schema_errors.ADDED.keys() == (TABLES - older) | columns
    shown = str(schema_errors.check())
    assert all(name in shown for name in schema_errors.ADDED)
