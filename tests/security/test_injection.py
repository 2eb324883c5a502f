"""S1: 200 hostile strings in every place for a string are stored unchanged, or refused before any SQL."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from sqlalchemy import URL, event, insert, select, text

from oban import Job, JobState, Oban, Worker, filters, migration
from oban.config import PREFIX
from oban.errors import ConfigError, InvalidJob
from oban.models import Leader, Producer, Queue
from oban.repository import cluster
from oban.repository.cluster import Heartbeat
from tests.security.hostile import STORABLE, STRINGS
from tests.support.databases import PostgreSQLFactory
from tests.support.internals import database_of
from tests.support.waiting import eventually

DUMP = {
    "sqlite": ["SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2", "PRAGMA database_list"],
    "postgresql": [
        "SELECT table_schema, table_name, column_name, data_type, column_default, is_nullable"
        " FROM information_schema.columns WHERE table_schema NOT IN ('pg_catalog') ORDER BY 1, 2, 3",
        "SELECT nspname, relname, relkind, relowner FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE nspname NOT LIKE 'pg_toast%%' ORDER BY 1, 2",
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint ORDER BY 1, 2",
        "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger ORDER BY 1, 2",
        "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg_temp%%' ORDER BY 1",
        "SELECT count(*) FROM pg_proc",
        "SELECT rolname, rolsuper FROM pg_roles ORDER BY 1",
        "SELECT count(*) FROM pg_db_role_setting",
    ],
}


async def dump(oban: Oban) -> list[Any]:
    """The whole schema of the database, without the rows of Oban."""
    async with oban.engine.connect() as connection:
        statements = DUMP[oban.engine.dialect.name]
        return [[tuple(row) for row in await connection.exec_driver_sql(sql)] for sql in statements]


@pytest.fixture
async def oban(url: URL) -> AsyncIterator[Oban]:
    """A client. Checks that the test has not changed the schema."""
    async with Oban(url) as client:
        before = await dump(client)
        yield client
        assert await dump(client) == before


@contextmanager
def no_statements(oban: Oban) -> Iterator[None]:
    """Fail if a statement is sent to the database inside the block."""
    sent: list[str] = []

    def note(*args: Any) -> None:
        sent.append(args[2])

    event.listen(oban.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(oban.engine.sync_engine, "before_cursor_execute", note)
    assert sent == []


#: The fields of a job that contains the string, for each place.
PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "worker": lambda text: {"worker": text},
    "queue": lambda text: {"queue": text},
    "tags": lambda text: {"tags": [text, "other"]},
    "meta key": lambda text: {"meta": {text: {text: 1}}},
    "meta value": lambda text: {"meta": {"a": [text]}},
    "args key": lambda text: {"args": {text: {text: 1}}},
    "args value": lambda text: {"args": {"a": [text]}},
}


def fields_of(job: Job) -> dict[str, Any]:
    return {field: getattr(job, field) for field in ("worker", "queue", "tags", "meta", "args")}


def accepted(place: str) -> list[dict[str, Any]]:
    """The fields of every job that is accepted with one of the strings in a place."""
    found = []
    for hostile in STRINGS:
        values = PLACES[place](hostile)
        try:
            Job(**{"worker": "tests.Hostile", **values})
        except InvalidJob:
            continue
        found.append(values)
    return found


def test_there_are_200_different_strings() -> None:
    assert len(STRINGS) >= 200
    assert len(STORABLE) >= 200


@pytest.mark.parametrize("place", PLACES)
async def test_strings_in_a_job_are_stored_unchanged(oban: Oban, place: str) -> None:
    accepted_values = accepted(place)
    # All are accepted, except strings that no database can store, and invalid names of queues.
    assert place == "queue" or len(accepted_values) >= len(
        [hostile for hostile in STORABLE if hostile.strip()]
    )
    jobs = [Job(**{"worker": "tests.Hostile", **values}) for values in accepted_values]
    expected = [fields_of(job) for job in jobs]
    for values, fields in zip(accepted_values, expected, strict=True):
        if "tags" in values:
            tags = {tag.strip().lower() for tag in values["tags"]}
            values = {"tags": sorted(tags - {""})}
        assert {field: fields[field] for field in values} == values
    await oban.enqueue_many(jobs)
    stored = await oban.list_jobs()
    assert [fields_of(job) for job in stored] == expected
    # Update all of them in one transaction, each with the values of another one.
    turned = {job.id: values for job, values in zip(stored, reversed(accepted_values), strict=True)}
    await oban.update_many_jobs(stored, lambda job: turned[job.id])
    field = next(iter(accepted_values[0]))
    changed = [fields_of(job)[field] for job in await oban.list_jobs()]
    assert changed == [fields[field] for fields in reversed(expected)]
    # Each can be found.
    for job in stored[::5]:
        statement = select(Job).where(Job.worker == job.worker, Job.queue == job.queue)
        assert job.id in [found.id for found in await oban.list_jobs(statement)]
    assert await oban.delete_many_jobs(stored) == len(accepted_values)


#: The condition that finds a string in a place, for places with filters.
FOUND_BY: dict[str, Callable[[str], Any]] = {
    "worker": filters.worker,
    "queue": filters.queue,
    "tags": lambda text: filters.tags(text, "OTHER") & filters.any_tag(text),
    "meta key": lambda text: (filters.meta(text, text) == 1) & filters.meta(text).exists(),
    "meta value": lambda text: filters.meta("a").contains(text) & (filters.meta("a", 0) == text),
    "args key": lambda text: (filters.args(text) == {text: 1}) & (filters.args(text, text) < 2),
    "args value": lambda text: (filters.args("a") == [text]) & (filters.args("a", 0) >= text),
}


@pytest.mark.parametrize("place", PLACES)
async def test_a_string_finds_its_job_and_no_other(oban: Oban, place: str) -> None:
    accepted_values = [text for text in STRINGS if PLACES[place](text) in accepted(place)]
    if place == "tags":
        # In lower case and trimmed, some strings are equal, or not valid as tags.
        accepted_values = list(
            {text.strip().lower(): text for text in accepted_values if text.strip()}.values()
        )
    jobs = await oban.enqueue_many(
        Job(**{"worker": "tests.Hostile", **PLACES[place](text)}) for text in accepted_values
    )
    for job, hostile in list(zip(jobs, accepted_values, strict=True))[::3]:
        found = await oban.list_jobs(select(Job).where(FOUND_BY[place](hostile)))
        assert [row.id for row in found] == [job.id], hostile


@pytest.mark.parametrize("place", PLACES)
async def test_an_update_refuses_invalid_strings_before_any_statement(oban: Oban, place: str) -> None:
    good = accepted(place)
    refused = [values for values in map(PLACES[place], STRINGS) if values not in good]
    assert refused
    job = await oban.enqueue(Job(worker="tests.Hostile"))
    with no_statements(oban):
        for values in refused:
            with pytest.raises(InvalidJob, match=f"^{next(iter(values))}"):
                await oban.update_job(job, values)


async def test_names_of_nodes_and_instances_are_stored_unchanged_or_refused(oban: Oban) -> None:
    names, beats = [], []
    for hostile in STRINGS:
        with no_statements(oban):
            try:
                Oban(oban.engine, name=hostile, node=hostile)
            except ConfigError:
                with pytest.raises(ConfigError):
                    await oban.pause_queue("default", node=hostile)
                continue
        names.append(hostile)
        client = Oban(oban.engine, name=hostile, node=hostile)
        await client.pause_queue("default", node=hostile)
        assert await database_of(client).write(cluster.elect, hostile, hostile, 60.0) is None
        beats.append(Heartbeat(uuid.uuid4(), hostile, hostile, "default", {hostile: hostile}))
    assert len(names) >= len([text for text in STORABLE if text.strip()])
    await database_of(oban).write(cluster.heartbeat, beats)
    async with oban.engine.connect() as connection:
        producers = await connection.execute(select(Producer.name, Producer.node, Producer.meta))
        assert sorted(map(tuple, producers), key=str) == sorted(((n, n, {n: n}) for n in names), key=str)
        leaders = await connection.execute(select(Leader.name, Leader.node))
        assert set(map(tuple, leaders)) == {(name, name) for name in names}
        said = await connection.execute(
            select(Queue.name, Queue.queue, Queue.node, Queue.paused).where(Queue.queue == "default")
        )
        assert set(map(tuple, said)) == {(name, "default", name, True) for name in names}
    for name in names[::20]:
        found = await Oban(oban.engine, name=name).check_cluster()
        assert [(info.node, info.queue) for info in found] == [(name, "default")]


async def test_queue_commands_accept_only_valid_names(oban: Oban) -> None:
    good = [values["queue"] for values in accepted("queue")]
    with no_statements(oban):
        for hostile in set(STRINGS) - set(good):
            for call in (oban.pause_queue, oban.resume_queue, oban.start_queue, oban.stop_queue):
                with pytest.raises(InvalidJob):
                    await call(hostile)
            with pytest.raises(InvalidJob):
                await oban.scale_queue(hostile, 5)
            with pytest.raises(ConfigError):
                Oban(oban.engine, queues={hostile: 1})


async def test_a_prefix_is_a_plain_name_or_refused(oban: Oban, url: URL) -> None:
    hostile = [text for text in STRINGS if not PREFIX.fullmatch(text)]
    assert len(hostile) > 200
    with no_statements(oban):
        for prefix in hostile:
            with pytest.raises(ConfigError):
                Oban(oban.engine, prefix=prefix)
            for change in (migration.upgrade, migration.downgrade):
                with pytest.raises(ConfigError):
                    change(url, prefix=prefix)


class Harmless(Worker, name="tests.Harmless"):
    async def process(self, job: Job) -> None: ...


@pytest.mark.parametrize("driver", ["sqlite", "asyncpg", "psycopg"])
async def test_a_node_handles_rows_full_of_hostile_strings(
    request: pytest.FixtureRequest, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    factory: Any = request.getfixturevalue(f"{'sqlite' if driver == 'sqlite' else 'postgresql'}_factory")
    url: URL = factory.create()
    if driver == "psycopg":
        url = url.set(drivername="postgresql+psycopg")
    name = "'\"; DROP TABLE oban_jobs; -- %s :name \n\x1b[31m\U0001f4a9"
    async with Oban(url, name=name, node=name, queues={"default": 20}, poll_interval=0.1) as oban:
        before = await dump(oban)
        nothing = {"tags": [], "args": {}, "meta": {}, "errors": [], "attempted_by": [], "max_attempts": 1}
        caplog.clear()
        rows = []
        for hostile in [*filter(None, STORABLE), "x" * 10_000]:
            holding = {"args": {hostile: hostile}, "meta": {hostile: hostile}}
            listed = {"tags": [hostile], "errors": [{hostile: hostile}], "attempted_by": [hostile] * 2}
            rows += [
                {**nothing, "worker": hostile, "queue": "default"},
                {**nothing, "worker": "tests.Harmless", "queue": hostile},
                {**nothing, "worker": "tests.Harmless", "queue": "default", **holding, **listed},
            ]
        async with oban.engine.begin() as connection:
            await connection.execute(insert(Job.__table__), rows)

        async def ended() -> bool:
            jobs = await oban.list_jobs(select(Job).where(Job.queue == "default"))
            return not {job.state for job in jobs} & {JobState.AVAILABLE, JobState.EXECUTING}

        await eventually(ended, 30)
        for row, job in zip(rows, await oban.list_jobs(), strict=True):
            assert (job.worker, job.queue, job.args, job.meta) == tuple(
                row[field] for field in ("worker", "queue", "args", "meta")
            )
            if job.queue != "default":
                assert (job.state, job.attempt) == (JobState.AVAILABLE, 0)
            elif job.worker == "tests.Harmless":
                assert (job.state, job.errors) == (JobState.COMPLETED, row["errors"])
            else:
                assert job.state is JobState.DISCARDED
                assert "is registered in this process" in job.errors[0]["error"]
        assert await dump(oban) == before
        # No row adds lines to the log, or sends control sequences to a terminal.
        said = [record.getMessage() for record in caplog.records]
        assert len(said) > len(STORABLE)
        assert [line for line in said if not line.isprintable() or len(line) > 1_000] == []
    factory.drop(url)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("schema", ['a"b; DROP TABLE x; --', "it's %s :name $1", "Ünï\U0001f4a9"])
async def test_a_schema_in_the_search_path_can_have_any_name(
    postgresql_factory: PostgreSQLFactory, driver: str, schema: str
) -> None:
    url = postgresql_factory.create(empty=True)
    quoted = '"' + schema.replace('"', '""') + '"'
    async with Oban(url) as client, client.engine.begin() as connection:
        raw = cast(Any, (await connection.get_raw_connection()).driver_connection)
        await raw.execute(f"CREATE SCHEMA {quoted}")
        await raw.execute(f"ALTER DATABASE {url.database} SET search_path = {quoted}")
    migration.upgrade(url)
    # So only a notification on the channel can wake the queue.
    async with Oban(
        url.set(drivername=f"postgresql+{driver}"), queues={"default": 1}, poll_interval=300
    ) as oban:
        job = await oban.enqueue(Harmless.new())

        async def completed() -> bool:
            row = await oban.get_job(job.id)
            return row is not None and row.state is JobState.COMPLETED

        await eventually(completed, 5)
        async with oban.engine.connect() as connection:
            assert await connection.scalar(
                text("SELECT count(*) FROM pg_tables WHERE schemaname = :name"), {"name": schema}
            )
    postgresql_factory.drop(url)
