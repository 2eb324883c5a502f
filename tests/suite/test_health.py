"""`health`: each problem that it finds is made for real, and a healthy instance has none."""

import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import click
import pytest
from sqlalchemy import URL, Engine, delete, insert, text
from sqlalchemy.ext.asyncio import create_async_engine

from oban import Oban, SyncOban, clock, migration
from oban.cli import main
from oban.diagnosis.health import CODES
from oban.diagnosis.health_findings import Finding, Health, Thresholds
from oban.errors import InvalidArgument
from oban.models import Leader, Producer, metadata
from tests.support.databases import Factory, PostgreSQLFactory
from tests.support.options import FAST_POLLING
from tests.support.rows import insert_rows, row
from tests.support.schema import render, run_script, sync_engine
from tests.support.waiting import eventually

OFTEN: dict[str, Any] = {"heartbeat_interval": 0.05, **FAST_POLLING}
AT_ONCE = Thresholds(oldest_job_warning=0, transaction_warning=0, dead_rows_warning=100, free_space_warning=0)


@pytest.fixture(params=["sqlite", "asyncpg"])
def factory(request: pytest.FixtureRequest) -> Factory:
    """Each database once: what the driver matters for is in other tests."""
    made: Factory = request.getfixturevalue(f"{request.param}_factory")
    return made


@pytest.fixture
def fresh_postgresql(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    made = postgresql_factory.create()
    yield made
    postgresql_factory.drop(made)


@pytest.fixture
def engine(url: URL) -> Engine:
    """A sync engine, for rows of nodes. They would have set the journal mode of SQLite."""
    if url.get_backend_name() == "sqlite":
        run_script(url, "PRAGMA journal_mode = WAL")
    return sync_engine(url)


def ago(**units: float) -> datetime:
    return datetime.now(UTC) - timedelta(**units)


def of(health: Health, code: str) -> list[Finding]:
    return [finding for finding in health.findings if finding.code == code]


def problem(health: Health, code: str) -> Finding:
    """The only finding of a check, which is a problem; no other check has found one."""
    assert [finding.code for finding in health.problems] == [code], health.problems
    assert health.problems[0].advice
    return health.problems[0]


async def examined(url: URL, **options: Any) -> Health:
    async with Oban(url, **options) as oban:
        return await oban.health()


def send_heartbeat(engine: Engine, *, age: float = 1.0, number: int = 1, **values: Any) -> None:
    """Store a row of a node that has run for ten minutes, with a heartbeat some seconds ago."""
    common = {"name": "Oban", "node": "n1", "queue": "default", "started_at": ago(minutes=10)}
    with engine.begin() as connection:
        row = {**common, "uuid": UUID(int=number), "updated_at": ago(seconds=age), "meta": {}, **values}
        connection.execute(insert(Producer), [row])


def lead(engine: Engine, node: str = "n1") -> None:
    times = {"elected_at": ago(minutes=1), "expires_at": ago(minutes=-1)}
    with engine.begin() as connection:
        connection.execute(delete(Leader))
        connection.execute(insert(Leader), [{"name": "Oban", "node": node, **times}])


# -- healthy -----------------------------------------------------------------------------------


async def test_new_tables_are_healthy(oban: Oban) -> None:
    health = await oban.health()
    assert (health.instance, health.severity, health.problems) == ("Oban", "ok", ())
    assert {finding.code for finding in health.findings} <= set(CODES)
    assert all(finding.advice is None for finding in health.findings)
    text = of(health, "database")[0].text
    assert text.startswith("SQLite" if oban.engine.dialect.name == "sqlite" else "PostgreSQL")


async def test_a_node_that_runs_is_healthy(url: URL) -> None:
    async with Oban(url, queues={"default": 2}, **OFTEN) as oban:

        async def is_settled() -> Health | None:
            health = await oban.health()
            done = "1 of 1 node hear" in of(health, "listener")[0].text
            return health if done and "leads" in of(health, "leader")[0].text else None

        health: Health = await eventually(is_settled)
        assert health.problems == ()
        assert of(health, "stale_node")[0].text == "All nodes send heartbeats."
        assert of(health, "clock_skew")[0].text.startswith("The clocks of 1 node are within")


async def test_both_clients_find_the_same(oban: Oban, url: URL, engine: Engine) -> None:
    run_script(url, "DROP INDEX oban_jobs_staging_index")
    driver = "postgresql+psycopg" if url.get_backend_name() == "postgresql" else "sqlite"
    with SyncOban(url.set(drivername=driver)) as sync:
        found = sync.health()
    expected = await oban.health()
    # The first one has the time that the database took.
    assert found.findings[1:] == expected.findings[1:]
    assert found.severity == "warning"


async def test_tables_of_create_all_are_healthy(url: URL, engine: Engine) -> None:
    with engine.begin() as connection:
        metadata.drop_all(connection)
        metadata.create_all(connection)
    health = await examined(url)
    assert health.problems == ()
    assert "no recorded revision" in of(health, "schema_version")[0].text


async def test_a_check_can_be_left_out(oban: Oban, url: URL) -> None:
    run_script(url, "DROP INDEX oban_jobs_staging_index")
    health = await oban.health(skip=["schema_drift"])
    assert (health.severity, of(health, "schema_drift")) == ("ok", [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"skip": ["bloa"]}, "there is no check 'bloa'; did you mean bloat?"),
        ({"skip": "bloat"}, "skip must be a collection"),
        ({"thresholds": 5}, "thresholds must be Thresholds, not 5"),
        ({"timeout": 0}, "timeout must be a positive number, not 0"),
    ],
)
@pytest.mark.parametrize("factory", ["sqlite"], indirect=True)
async def test_wrong_arguments_are_refused(oban: Oban, arguments: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message.replace("?", r"\?")):
        await oban.health(**arguments)


@pytest.mark.parametrize("value", [-1, float("inf"), float("nan"), True, "5"])
def test_wrong_thresholds_are_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="oldest_job_warning must be a number of at least 0"):
        Thresholds(oldest_job_warning=value)


def test_a_warning_cannot_come_after_critical() -> None:
    with pytest.raises(InvalidArgument, match=r"clock_skew_warning must not be greater .* 61 > 60"):
        Thresholds(clock_skew_warning=61)


# -- the database ------------------------------------------------------------------------------


async def test_a_database_that_cannot_be_reached_is_the_only_finding(url: URL) -> None:
    gone = url.set(database="/nowhere/gone.db" if url.get_backend_name() == "sqlite" else "gone")
    health = await examined(gone)
    assert [(finding.code, finding.severity) for finding in health.findings] == [("database", "critical")]
    assert health.severity == "critical"


async def test_no_check_waits_for_a_lock(fresh_postgresql: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oban.dialects.postgresql.diagnostics.LOCK_TIMEOUT", 20)
    with sync_engine(fresh_postgresql).begin() as connection:
        connection.execute(text("LOCK TABLE oban_jobs IN ACCESS EXCLUSIVE MODE"))
        health = await examined(fresh_postgresql)
    assert health.severity == "unknown"
    assert {finding.code for finding in health.problems} >= {"oldest_job", "unserved_queue", "staging"}
    assert "lock timeout" in of(health, "oldest_job")[0].text


async def test_checks_without_time_left_are_unknown(oban: Oban, monkeypatch: pytest.MonkeyPatch) -> None:
    health = await oban.health(timeout=1e-9)
    assert health.severity == "unknown"
    assert {finding.text for finding in health.findings} == {
        "There was no time left for the check within 1e-09 s."
    }


async def test_what_the_role_may_not_read_is_unknown(fresh_postgresql: URL) -> None:
    role = f"reader_{fresh_postgresql.database}"
    script = (
        f"CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};"
        f"REVOKE ALL ON oban_alembic_version, oban_producers FROM {role}"
    )
    run_script(fresh_postgresql, script)
    try:
        with sync_engine(fresh_postgresql).begin() as connection:
            connection.execute(text("UPDATE oban_queues SET paused = false"))
            connection.execute(text("SELECT pg_current_xact_id()"))
            health = await examined(fresh_postgresql.set(username=role))
        assert health.severity == "unknown"
        found = {finding.code: finding for finding in health.problems}
        assert "permission denied for table oban_alembic_version" in found["schema_version"].text
        assert "permission denied for table oban_producers" in found["stale_node"].text
        assert "1 transaction of another role is open" in found["transaction"].text
        assert found["transaction"].advice == f"Run GRANT pg_read_all_stats TO {role}."
        assert {finding.severity for finding in found.values()} == {"unknown"}
        assert of(health, "trigger")[0].severity == "ok"
        run_script(fresh_postgresql, f"GRANT pg_read_all_stats TO {role}")
        seen = await examined(fresh_postgresql.set(username=role))
        assert of(seen, "transaction")[0].severity == "ok"
    finally:
        run_script(fresh_postgresql, f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_callers_transaction_keeps_its_settings(fresh_postgresql: URL) -> None:
    engine = create_async_engine(fresh_postgresql)
    async with engine.connect() as connection:
        await connection.execute(text("SET statement_timeout = 12345"))
        async with Oban(connection) as oban:
            assert (await oban.health()).severity == "ok"
        assert await connection.scalar(text("SHOW statement_timeout")) == "12345ms"
    await engine.dispose()


@pytest.mark.parametrize("state", ["idle in transaction", "prepared"])
async def test_a_transaction_that_stays_open_is_found(fresh_postgresql: URL, state: str) -> None:
    async with Oban(fresh_postgresql) as oban:
        with sync_engine(fresh_postgresql).connect() as connection:
            pid = connection.scalar(text("SELECT pg_backend_pid()"))
            if state == "prepared":
                connection.execute(text("UPDATE oban_queues SET paused = true"))
                connection.execute(text("SELECT pg_current_xact_id()"))
                connection.execute(text("PREPARE TRANSACTION 'one'"))
                connection.commit()
            assert (await oban.health()).severity == "ok"
            found = problem(await oban.health(AT_ONCE), "transaction")
            critical = await oban.health(Thresholds(transaction_warning=0, transaction_critical=0))
        assert (found.severity, critical.severity) == ("warning", "critical")
        expected = "the prepared transaction one" if state == "prepared" else f"process {pid} (role "
        assert f"A transaction of {expected}" in found.text
        remedy = str(found.advice).partition("run ")[2].partition(". ")[0]
        run_script(fresh_postgresql, remedy)
        assert (await oban.health(AT_ONCE)).severity == "ok"


@pytest.mark.parametrize("autovacuum", [True, False])
async def test_dead_rows_are_found(fresh_postgresql: URL, autovacuum: bool) -> None:
    option = "autovacuum_vacuum_threshold = 1000000" if autovacuum else "autovacuum_enabled = false"
    run_script(fresh_postgresql, f"ALTER TABLE oban_jobs SET ({option})")
    async with Oban(fresh_postgresql) as oban:
        # The end of a connection reports what it did. One that stays open may report its inserts after the
        # deletion, and then the server counts them as live rows.
        run_script(fresh_postgresql, "INSERT INTO oban_jobs (worker) SELECT 'x' FROM generate_series(1, 200)")
        run_script(fresh_postgresql, "DELETE FROM oban_jobs")

        async def is_found() -> Health | None:
            health = await oban.health(AT_ONCE)
            return health if "200 dead and 0 live" in of(health, "bloat")[0].text else None

        found = problem(await eventually(is_found), "bloat")
        begin = "Autovacuum does not keep up with" if autovacuum else "Autovacuum is off for"
        assert found.text.startswith(f"{begin} public.oban_jobs, which has 200 dead and 0 live rows, in")
        run_script(fresh_postgresql, "VACUUM oban_jobs")
        if not autovacuum:
            run_script(fresh_postgresql, "ALTER TABLE oban_jobs RESET (autovacuum_enabled)")
        assert (await oban.health(AT_ONCE)).severity == "ok"


@pytest.mark.parametrize("factory", ["sqlite"], indirect=True)
async def test_a_file_that_is_mostly_free_is_found(oban: Oban, url: URL) -> None:
    await insert_rows(oban.engine, *(row("completed", args={"a": "x" * 3000}) for _ in range(200)))
    assert (await oban.health(AT_ONCE)).severity == "ok"
    run_script(url, "DELETE FROM oban_jobs")
    found = problem(await oban.health(AT_ONCE), "free_space")
    assert found.text.startswith("The database's file is mostly empty: ")
    run_script(url, "VACUUM")
    assert (await oban.health(AT_ONCE)).severity == "ok"


@pytest.mark.parametrize("factory", ["sqlite"], indirect=True)
async def test_a_journal_in_which_nodes_wait_for_each_other_is_found(
    oban: Oban, url: URL, engine: Engine
) -> None:
    run_script(url, "PRAGMA journal_mode = DELETE")
    # Until a node has run, nobody has set it.
    assert (await oban.health()).severity == "ok"
    send_heartbeat(engine)
    lead(engine)
    assert "journal mode is delete" in problem(await oban.health(), "journal_mode").text
    run_script(url, "PRAGMA journal_mode = WAL")
    assert (await oban.health()).severity == "ok"


# -- the tables --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("revision", "severity", "expected"),
    [("0005", "critical", "at revision 0005, but this version"), ("9999", "warning", "does not know")],
)
async def test_another_revision_is_found(
    oban: Oban, url: URL, revision: str, severity: str, expected: str
) -> None:
    run_script(url, f"UPDATE oban_alembic_version SET version_num = '{revision}'")
    found = problem(await oban.health(), "schema_version")
    assert (found.severity, expected in found.text) == (severity, True)


async def test_a_database_without_tables_is_critical(oban: Oban, url: URL) -> None:
    migration.downgrade(render(url))
    health = await oban.health()
    assert health.severity == "critical"
    assert health.problems[0].text.startswith("There are no Oban tables")
    assert health.problems[0].advice == (
        "Run `oban install`, or `alembic upgrade head` if Alembic manages the tables."
    )
    assert {finding.severity for finding in health.problems[1:]} == {"unknown"}


REPAIRED = ("DROP TABLE IF EXISTS oban_alembic_version", "oban install")
#: By the statement that does it: the severity, the text, and whether `oban install` repairs it.
DRIFTS = {
    "DROP INDEX oban_jobs_staging_index": (
        *("warning", "oban_jobs has no index oban_jobs_staging_index.", False),
    ),
    "DROP INDEX oban_attempts_job_id_index": (
        *("warning", "oban_attempts has no index oban_attempts_job_id_index.", False),
    ),
    "DROP INDEX oban_jobs_completed_at_index; CREATE INDEX oban_jobs_completed_at_index ON oban_jobs (id)": (
        "warning",
        "The index oban_jobs_completed_at_index of oban_jobs is invalid, or not the one that Oban creates.",
        False,
    ),
    "DROP TABLE oban_ticks": ("critical", "There is no table oban_ticks.", True),
    "ALTER TABLE oban_jobs DROP COLUMN unique_rule": (
        *("critical", "oban_jobs has no column unique_rule.", True),
    ),
}


@pytest.mark.parametrize("statement", DRIFTS)
async def test_what_is_missing_in_the_tables_is_found_and_the_advice_repairs_it(
    oban: Oban, url: URL, statement: str
) -> None:
    severity, expected, by_install = DRIFTS[statement]
    run_script(url, statement)
    found = problem(await oban.health(), "schema_drift")
    assert (found.severity, found.text) == (severity, expected)
    repair(url, str(found.advice), by_install=by_install)
    assert (await oban.health()).severity == "ok"


def repair(url: URL, advice: str, *, by_install: bool) -> None:
    """Do what an advice says."""
    statements, _, command = advice.removeprefix("Run ").removesuffix(".").partition(", and then ")
    run_script(url, statements)
    if by_install:
        assert command.startswith("`oban install`")
        migration.upgrade(render(url))
    elif command:
        run_script(url, command)


POSTGRESQL_DRIFTS = {
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'oban_jobs_staging_index'::regclass": (
        *("warning", "The index oban_jobs_staging_index of oban_jobs is invalid"),
    ),
    "DROP INDEX oban_jobs_staging_index; CREATE INDEX oban_jobs_staging_index"
    " ON oban_jobs (scheduled_at, id)": ("warning", "The index oban_jobs_staging_index of oban_jobs is"),
    "ALTER TABLE oban_jobs ALTER COLUMN priority TYPE integer": (
        *("warning", "oban_jobs.priority is integer NOT NULL, not smallint NOT NULL."),
    ),
    "ALTER TABLE oban_jobs ALTER COLUMN worker DROP NOT NULL": (
        *("warning", "oban_jobs.worker is text NULL, not text NOT NULL."),
    ),
    "ALTER TABLE oban_jobs DROP CONSTRAINT worker_length": (
        *("warning", "The constraint worker_length of oban_jobs is missing."),
    ),
    "ALTER TABLE oban_leaders DROP CONSTRAINT oban_leaders_pkey": (
        *("critical", "oban_leaders has no primary key (name)."),
    ),
    "ALTER TYPE oban_job_state RENAME VALUE 'suspended' TO 'waiting'": (
        *("critical", "oban_job_state has no value suspended."),
    ),
}


@pytest.mark.parametrize("statement", POSTGRESQL_DRIFTS)
async def test_what_has_changed_in_the_tables_is_found(fresh_postgresql: URL, statement: str) -> None:
    severity, expected = POSTGRESQL_DRIFTS[statement]
    run_script(fresh_postgresql, statement)
    health = await examined(fresh_postgresql, name="Oban")
    (found,) = (finding for finding in health.problems if finding.code == "schema_drift")
    assert (found.severity, found.text[: len(expected)]) == (severity, expected)
    assert str(found.advice).startswith(("Run ", "Change it back"))
    if "pkey" in statement or "CONSTRAINT" in statement or "INDEX" in statement:
        repair(fresh_postgresql, str(found.advice), by_install=False)
        assert (await examined(fresh_postgresql)).severity == "ok"


async def test_the_tables_of_a_prefix_are_compared(fresh_postgresql: URL) -> None:
    migration.upgrade(render(fresh_postgresql), prefix="jobs")
    assert (await examined(fresh_postgresql, prefix="jobs")).problems == ()
    run_script(fresh_postgresql, "DROP INDEX jobs.oban_jobs_staging_index")
    assert (await examined(fresh_postgresql)).severity == "ok"
    found = problem(await examined(fresh_postgresql, prefix="jobs"), "schema_drift")
    repair(fresh_postgresql, str(found.advice), by_install=False)
    assert (await examined(fresh_postgresql, prefix="jobs")).problems == ()


TRIGGERS = {
    "DROP TRIGGER oban_notify_insert ON oban_jobs": "public.oban_jobs has no trigger oban_notify_insert",
    "ALTER TABLE oban_jobs DISABLE TRIGGER oban_notify_insert": (
        "The trigger oban_notify_insert of public.oban_jobs is disabled"
    ),
    "CREATE OR REPLACE FUNCTION oban_notify_insert() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN RETURN NULL; END'": "The function oban_notify_insert of public.oban_jobs is not that",
}


@pytest.mark.parametrize("statement", TRIGGERS)
async def test_a_trigger_that_announces_nothing_is_found(fresh_postgresql: URL, statement: str) -> None:
    run_script(fresh_postgresql, statement)
    found = problem(await examined(fresh_postgresql), "trigger")
    assert (found.severity, found.text[: len(TRIGGERS[statement])]) == ("warning", TRIGGERS[statement])
    if "ENABLE" in str(found.advice):
        run_script(fresh_postgresql, str(found.advice).removeprefix("Run ").removesuffix("."))
    else:
        migration.upgrade(render(fresh_postgresql))
    assert (await examined(fresh_postgresql)).severity == "ok"


# -- the nodes ---------------------------------------------------------------------------------


async def test_a_node_without_heartbeats_is_found(oban: Oban, engine: Engine) -> None:
    send_heartbeat(engine, age=600, started_at=ago(hours=1), meta={"lease": 60, "pid": 7, "running": [1, 2]})
    send_heartbeat(engine, number=2, node="n2")
    lead(engine, "n2")
    found = problem(await oban.health(), "stale_node")
    assert found.text == (
        "The node n1 (process 7) has sent no heartbeat for 10 minutes, and its lease was 60 seconds: it is"
        " dead, frozen or cut off from the database. 2 jobs were running there."
    )
    assert found.severity == "warning"


async def test_it_is_critical_that_no_node_sends_heartbeats(oban: Oban, engine: Engine) -> None:
    for number in (1, 2):
        send_heartbeat(engine, number=number, node=f"n{number}", age=600, meta={"lease": 60})
    stale = of(await oban.health(), "stale_node")
    assert [finding.severity for finding in stale] == ["critical", "critical"]


class Shifted(clock.Clock):
    """A clock that is wrong by some seconds."""

    def __init__(self, by: float) -> None:
        self.by = timedelta(seconds=by)

    def now(self) -> datetime:
        return super().now() + self.by


@pytest.mark.parametrize(
    ("by", "severity", "expected"),
    [
        (
            20,
            "warning",
            "20 seconds ahead of the database's: jobs that it enqueues with schedule_in run too late",
        ),
        (
            -7200,
            "critical",
            "2 hours behind the database's: jobs that it enqueues with schedule_in run too early",
        ),
    ],
)
async def test_a_node_whose_clock_is_wrong_is_found(
    url: URL, by: float, severity: str, expected: str
) -> None:
    with clock.use(Shifted(by)):
        async with Oban(url, node="n1", queues={"default": 2}, **OFTEN) as oban:
            found = problem(await oban.health(), "clock_skew")
    assert (found.severity, expected in found.text) == (severity, True)


async def test_a_deaf_listener_is_found(fresh_postgresql: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oban.notifier.health.ECHO_TIMEOUT", 0.05)
    elsewhere = render(fresh_postgresql.set(database="postgres"))
    async with Oban(fresh_postgresql, queues={"default": 2}, listen_url=elsewhere, **OFTEN) as oban:

        async def is_found() -> Health | None:
            health = await oban.health()
            return health if of(health, "listener")[0].severity != "ok" else None

        found = problem(await eventually(is_found), "listener")
    assert "listens, but hears no notifications" in found.text


@pytest.mark.parametrize("factory", ["sqlite"], indirect=True)
async def test_a_node_that_cannot_watch_its_file_is_found(oban: Oban, engine: Engine) -> None:
    send_heartbeat(engine, meta={"listener": {"kind": "data_version", "hears": False}})
    lead(engine)
    assert "cannot watch the file" in problem(await oban.health(), "listener").text


async def test_nodes_without_a_leader_are_found(oban: Oban, engine: Engine) -> None:
    send_heartbeat(engine)
    assert problem(await oban.health(), "leader").text.startswith(
        "No node leads the instance Oban, although 1 node has run for more than a lease of 60 seconds"
    )
    # One of them may be elected soon.
    with engine.begin() as connection:
        connection.execute(delete(Producer))
    send_heartbeat(engine, started_at=ago(seconds=30))
    assert (await oban.health()).severity == "ok"


# -- the queues --------------------------------------------------------------------------------


def assert_commands_can_be_used(finding: Finding) -> None:
    """The commands in the advice have arguments and options that exist."""
    found = re.findall("`oban ([^`]+)`", finding.advice or "")
    assert found
    for line in found:
        command: click.Command = main
        words = shlex.split(line.replace("LIMIT", "5").replace(" ID", " 7"))
        while isinstance(command, click.Group):
            _, chosen, words = command.resolve_command(click.Context(command), words)
            assert chosen is not None
            command = chosen
        command.make_context(command.name, words)


@pytest.mark.parametrize(("minutes", "severity"), [(3, "ok"), (10, "warning"), (120, "critical")])
async def test_jobs_that_wait_for_long_are_found(
    oban: Oban, engine: Engine, minutes: float, severity: str
) -> None:
    send_heartbeat(engine)
    lead(engine)
    # The oldest job is not the first one to run.
    old = row(scheduled_at=ago(minutes=minutes), priority=9)
    await insert_rows(
        oban.engine, row(scheduled_at=ago(seconds=1)), old, row("completed", scheduled_at=ago(days=9))
    )
    health = await oban.health()
    found = of(health, "oldest_job")[0]
    assert (health.severity, found.severity) == (severity, severity)
    age = {3: "3 minutes", 10: "10 minutes", 120: "2 hours"}[int(minutes)]
    assert f"has waited for {age}." in found.text
    if severity != "ok":
        assert_commands_can_be_used(found)


async def test_jobs_of_a_paused_queue_are_found(oban: Oban, engine: Engine) -> None:
    send_heartbeat(engine, meta={"paused": True})
    lead(engine)
    await insert_rows(oban.engine, row(scheduled_at=ago(minutes=10)))
    found = problem(await oban.health(), "oldest_job")
    assert found.text.endswith("because the queue is paused on all nodes that run it.")
    assert found.advice == "Run `oban queues resume default`."
    send_heartbeat(engine, number=2, node="n2")
    assert "paused" not in problem(await oban.health(), "oldest_job").text


@pytest.mark.parametrize(
    ("state", "minutes", "severity"),
    [("available", 0, "warning"), ("available", 120, "critical"), ("retryable", 2, "warning")],
)
async def test_a_queue_that_no_node_runs_is_found(
    oban: Oban, engine: Engine, state: str, minutes: float, severity: str
) -> None:
    send_heartbeat(engine, queue="mails")
    send_heartbeat(engine, queue="mail", number=2, age=100, node="n2")
    lead(engine)
    tomorrow = row("scheduled", queue="other", scheduled_at=ago(days=-1))
    await insert_rows(oban.engine, row(state, queue="mail", scheduled_at=ago(minutes=minutes)), tomorrow)
    found = problem(await oban.health(skip=["stale_node"]), "unserved_queue")
    assert found.severity == severity
    assert found.text.startswith("No live node runs the queue mail, whose oldest job has waited for")
    assert found.text.endswith("Did you mean mails?")
    assert "oban jobs update --queue mail --set-queue mails`" in str(found.advice)
    assert_commands_can_be_used(found)


async def test_advice_names_the_instance(url: URL, engine: Engine) -> None:
    async with Oban(url, name="web shop") as oban:
        await insert_rows(oban.engine, row(queue="mail", scheduled_at=ago(seconds=1)))
        found = problem(await oban.health(), "unserved_queue")
    assert "`oban queues start mail --name 'web shop'`" in str(found.advice)
    assert_commands_can_be_used(found)


async def test_a_queue_of_another_instance_is_run(oban: Oban, engine: Engine) -> None:
    send_heartbeat(engine, name="other", queue="mail")
    await insert_rows(oban.engine, row(queue="mail", scheduled_at=ago(seconds=1)))
    assert (await oban.health()).severity == "ok"


async def test_many_queues_that_no_node_runs_are_summed_up(oban: Oban) -> None:
    await insert_rows(oban.engine, *(row(queue=f"queue-{number}") for number in range(25)))
    found = of(await oban.health(), "unserved_queue")
    assert (len(found), found[-1].text) == (21, "There are 5 more such findings.")


async def test_due_jobs_that_nobody_makes_available_are_found(oban: Oban, engine: Engine) -> None:
    send_heartbeat(engine)
    lead(engine)
    await insert_rows(oban.engine, row("scheduled", scheduled_at=ago(minutes=10)))
    found = problem(await oban.health(), "staging")
    assert "has been due for 10 minutes, and no node has made it available" in found.text
