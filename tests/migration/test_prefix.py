"""With a prefix everything is created in that schema, and everything works there."""

import pytest
from sqlalchemy import URL, select, text

from oban import Job, JobState, Oban, Record, Worker, migration
from oban.errors import ConfigError, SchemaMissing
from tests.support.alembic_commands import alembic, here, succeeds
from tests.support.schema import TABLES, VERSION_TABLE, described, is_empty, sync_engine, tables
from tests.support.waiting import eventually


class Doubles(Worker):
    async def process(self, job: Job) -> Record:
        if job.args.get("fail") and job.attempt == 1:
            raise ValueError("bad")
        return Record(job.args["n"] * 2)

    def backoff(self, job: Job) -> float:
        return 0


def test_everything_is_created_in_the_schema_and_nothing_elsewhere(bare_postgresql: URL) -> None:
    succeeds("-x", "prefix=jobs", "upgrade", "head", url=bare_postgresql)
    assert tables(bare_postgresql, "jobs") == TABLES | {VERSION_TABLE}
    assert is_empty(bare_postgresql, "public")
    here("-x", "prefix=jobs", "check", url=bare_postgresql)
    here("-x", "prefix=jobs", "downgrade", "base", url=bare_postgresql)
    assert is_empty(bare_postgresql, "jobs")


def test_a_schema_has_the_same_content_as_public(bare_postgresql: URL) -> None:
    migration.upgrade(bare_postgresql, prefix="jobs")
    migration.upgrade(bare_postgresql)

    def plain(description: object) -> str:
        return str(description).replace("jobs.oban", "oban")

    assert plain(described(bare_postgresql, "jobs")) == plain(described(bare_postgresql))


def test_several_schemas_and_public_live_side_by_side(postgresql_schema_urls: tuple[URL, URL]) -> None:
    url, _ = postgresql_schema_urls
    for prefix in (None, "first", "second"):
        migration.upgrade(url, prefix=prefix)
    for prefix in ("first", "second"):
        here("-x", f"prefix={prefix}", "check", url=url)
    here("check", url=url)
    migration.downgrade(url, prefix="first")
    assert is_empty(url, "first")
    assert tables(url, "second") == TABLES | {VERSION_TABLE}
    assert tables(url) == TABLES | {VERSION_TABLE}


def test_a_schema_that_exists_is_used(postgresql_schema_urls: tuple[URL, URL]) -> None:
    url, _ = postgresql_schema_urls
    with sync_engine(url).begin() as connection:
        connection.execute(text("CREATE SCHEMA jobs"))
        connection.execute(text("CREATE TABLE jobs.mine (id int)"))
    migration.upgrade(url, prefix="jobs")
    here("-x", "prefix=jobs", "check", url=url)
    migration.downgrade(url, prefix="jobs")
    assert tables(url, "jobs") == {"mine"}


async def test_jobs_are_enqueued_run_and_managed_in_a_schema(bare_postgresql: URL) -> None:
    migration.upgrade(bare_postgresql, prefix="jobs")
    options = {"poll_interval": 300.0, "stage_interval": 300.0, "watch_interval": 300.0}
    async with Oban(bare_postgresql, prefix="jobs", queues={"default": 5}, **options) as oban:  # type: ignore[arg-type]
        one, *many = await oban.enqueue_many([Doubles.new({"n": n, "fail": n == 2}) for n in range(3)])
        later = await oban.enqueue(Doubles.new({"n": 5}, schedule_in=3600))

        async def finished() -> bool:
            rows = await oban.list_jobs(select(Job).where(Job.state == JobState.COMPLETED))
            return len(rows) == 3

        await eventually(finished)
        assert (await oban.update_job(later, {"priority": 3})).priority == 3
        assert await oban.cancel_job(later)
        assert await oban.retry_job(later)
        returned = select(Job).where(Job.meta["return"].as_integer() == 10)

        async def ran() -> bool:
            return len(await oban.list_jobs(returned)) == 1

        await eventually(ran)
        assert await oban.delete_many_jobs([one, *many]) == 3
        assert [job.id for job in await oban.list_jobs()] == [later.id]
    assert is_empty(bare_postgresql, "public")


async def test_a_schema_without_tables_is_named_with_the_command_that_makes_them(
    bare_postgresql: URL,
) -> None:
    migration.upgrade(bare_postgresql)
    async with Oban(bare_postgresql, prefix="jobs") as client:
        with pytest.raises(SchemaMissing, match=r"schema jobs .* --prefix jobs"):
            await client.enqueue(Doubles.new({"n": 1}))


@pytest.mark.parametrize(
    "prefix", ["Jobs", "my-jobs", "1jobs", "a.b", 'a"b', "jobs; DROP TABLE x", "é", "x" * 41, " jobs"]
)
def test_a_prefix_that_is_not_a_plain_name_is_refused(
    postgresql_schema_urls: tuple[URL, URL], prefix: str
) -> None:
    url, _ = postgresql_schema_urls
    with pytest.raises(ConfigError, match="not a schema name"):
        migration.upgrade(url, prefix=prefix)
    with pytest.raises(ConfigError, match="not a schema name"):
        Oban(url, prefix=prefix)
    assert is_empty(url, "public")


def test_the_command_line_refuses_such_a_prefix_too(postgresql_schema_urls: tuple[URL, URL]) -> None:
    url, _ = postgresql_schema_urls
    done = alembic("-x", "prefix=Jobs", "upgrade", "head", url=url)
    assert done.returncode != 0
    assert "not a schema name" in done.stderr


def test_a_prefix_is_refused_on_sqlite(sqlite_url: URL) -> None:
    with pytest.raises(ConfigError, match="no schemas"):
        migration.upgrade(sqlite_url, prefix="jobs")
    with pytest.raises(ConfigError, match="no schemas"):
        Oban(sqlite_url, prefix="jobs")
    assert is_empty(sqlite_url)
