"""The tables are as documented: columns, defaults, names, checks, storage and the trigger."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL, Connection, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from oban import Job, JobState
from oban.models import Leader, Producer, Queue
from tests.support.schema import TABLES, condition, described, sync_engine

STATES = [
    *("available", "scheduled", "suspended", "executing"),
    *("retryable", "completed", "discarded", "cancelled"),
]
POSTGRESQL_TYPES = {
    **dict.fromkeys(["queue", "worker"], "text"),
    **dict.fromkeys(["attempt", "max_attempts", "priority"], "smallint"),
    **dict.fromkeys(["args", "meta", "errors"], "jsonb"),
    **dict.fromkeys(["tags", "attempted_by"], "text[]"),
    **dict.fromkeys(["inserted_at", "scheduled_at", "attempted_at"], "timestamp without time zone"),
    **dict.fromkeys(["cancelled_at", "completed_at", "discarded_at"], "timestamp without time zone"),
    "id": "bigint",
    "state": "oban_job_state",
    "unique_key": "text",
    "unique_rule": "jsonb",
}
NULLABLE = {"attempted_at", "cancelled_at", "completed_at", "discarded_at", "unique_key", "unique_rule"}


def test_the_columns_are_those_of_oban(url: URL) -> None:
    with sync_engine(url).connect() as connection:
        columns = inspect(connection).get_columns("oban_jobs")
        assert {column["name"] for column in columns} == set(POSTGRESQL_TYPES)
        assert {column["name"] for column in columns if column["nullable"]} == NULLABLE
        if connection.dialect.name == "postgresql":
            query = "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
            query += " WHERE attrelid = 'oban_jobs'::regclass AND attnum > 0"
            assert {row[0]: row[1] for row in connection.execute(text(query))} == POSTGRESQL_TYPES
            labels = connection.scalars(text("SELECT unnest(enum_range(NULL::oban_job_state))::text"))
            assert list(labels) == STATES


def test_constraints_and_indexes_have_their_names(url: URL) -> None:
    with sync_engine(url).connect() as connection:
        inspector = inspect(connection)
        for table in sorted(TABLES - {"oban_attempts"}):
            name = inspector.get_pk_constraint(table)["name"]
            # An autoincrement key on SQLite is part of its column, without a name.
            assert name == f"{table}_pkey" or (url.get_backend_name(), table) == ("sqlite", "oban_jobs")
        assert inspector.get_pk_constraint("oban_attempts")["name"] is None
        checks = {check["name"] for check in inspector.get_check_constraints("oban_jobs")}
        # On PostgreSQL, an enum has the states.
        checks -= {"known_state"} if connection.dialect.name == "sqlite" else set()
        assert checks == {
            *("attempt_range", "positive_max_attempts", "priority_range"),
            *("queue_length", "worker_length"),
        }
        indexes = {str(index["name"]): index for index in inspector.get_indexes("oban_jobs")}
        assert {name: index["column_names"] for name, index in indexes.items()} == {
            "oban_jobs_state_queue_priority_scheduled_at_id_index": [
                *("state", "queue", "priority", "scheduled_at", "id")
            ],
            "oban_jobs_staging_index": ["scheduled_at", "id"],
            "oban_jobs_completed_at_index": ["completed_at"],
            "oban_jobs_cancelled_at_index": ["cancelled_at"],
            "oban_jobs_discarded_at_index": ["discarded_at"],
            "oban_jobs_exhausted_index": ["id"],
            "oban_jobs_unique_key_index": ["unique_key", "state", "inserted_at", "scheduled_at"],
        }
        for state in ("completed", "cancelled", "discarded"):
            assert f"'{state}'" in condition(indexes[f"oban_jobs_{state}_at_index"])
        where = condition(indexes["oban_jobs_staging_index"])
        assert re.findall(r"'(\w+)'", where) == ["scheduled", "retryable"]
        exhausted = condition(indexes["oban_jobs_exhausted_index"])
        assert re.search(r"state = 'available'.* AND .*attempt >= max_attempts", exhausted)
        assert "unique_key IS NOT NULL" in condition(indexes["oban_jobs_unique_key_index"])
        assert condition(indexes["oban_jobs_state_queue_priority_scheduled_at_id_index"]) == ""


def test_the_queue_table_is_vacuumed_early_and_every_table_survives_a_crash(
    postgresql_with_jobs: URL,
) -> None:
    options = described(postgresql_with_jobs)["options"]
    assert all("'p'" in option for option in options)
    (jobs,) = [option for option in options if "oban_jobs" in option]
    assert "autovacuum_vacuum_scale_factor=0.0" in jobs
    assert "fillfactor=" in jobs
    (keys,) = [option for option in options if "oban_unique_keys" in option]
    assert "fillfactor=70" in keys
    assert "autovacuum_vacuum_scale_factor=0.02" in keys


def test_the_database_fills_in_columns_that_plain_sql_leaves_out(url: URL) -> None:
    engine = sync_engine(url)
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET timezone = 'America/New_York'"))
        connection.execute(text("INSERT INTO oban_jobs (worker) VALUES ('any')"))
        with Session(connection) as session:
            job = session.get(Job, 1)
            assert job is not None
            assert (job.state, job.queue, job.worker) == (JobState.AVAILABLE, "default", "any")
            assert (job.attempt, job.max_attempts, job.priority) == (0, 20, 0)
            assert (job.args, job.meta, job.tags, job.errors, job.attempted_by) == ({}, {}, [], [], [])
            for at in (job.inserted_at, job.scheduled_at):
                assert at.utcoffset() == timedelta(0)
                assert abs(at - datetime.now(UTC)) < timedelta(minutes=1)
            ended = (job.attempted_at, job.cancelled_at, job.completed_at, job.discarded_at)
            assert ended == (None, None, None, None)


def test_the_models_write_and_read_every_table(url: URL) -> None:
    now = datetime.now(UTC).replace(microsecond=123456)
    with Session(sync_engine(url)) as session:
        job = Job(worker="any", args={"ä": [1, None]}, tags=["b", "a"], meta={"m": 1.5}, priority=9)
        leader = Leader(name="Oban", node="here", elected_at=now, expires_at=now)
        producer = Producer(uuid=uuid4(), name="Oban", node="here", queue="default")
        queue = Queue(name="Oban", queue="default", limit=3)
        session.add_all([job, leader, producer, queue])
        session.commit()
        session.expire_all()
        assert (job.id, job.args, job.tags, job.meta) == (1, {"ä": [1, None]}, ["a", "b"], {"m": 1.5})
        assert (leader.elected_at, producer.meta) == (now, {})
        assert producer.started_at.utcoffset() == timedelta(0)
        assert (queue.node, queue.running, queue.limit, queue.paused) == ("", None, 3, None)
        assert queue.updated_at.utcoffset() == timedelta(0)


def test_ids_are_never_reused(url: URL) -> None:
    with sync_engine(url).begin() as connection:
        insert = text("INSERT INTO oban_jobs (worker) VALUES ('any') RETURNING id")
        first = connection.scalar(insert)
        connection.execute(text("DELETE FROM oban_jobs"))
        assert (first, connection.scalar(insert)) == (1, 2)


#: Values that no row may have.
REFUSED: list[dict[str, Any]] = [
    *({"priority": -1}, {"priority": 10}, {"max_attempts": 0}, {"max_attempts": -1}),
    *({"attempt": -1}, {"attempt": 4, "max_attempts": 3}, {"queue": ""}, {"worker": ""}),
    *({"state": "unknown"}, {"state": ""}, {"state": "AVAILABLE"}),
    *({column: None} for column in sorted(set(POSTGRESQL_TYPES) - NULLABLE - {"id"})),
]


def test_the_database_refuses_invalid_jobs(url: URL) -> None:
    with sync_engine(url).connect() as connection:
        for values in REFUSED:
            given = {"worker": "any", **values}
            shown = [
                f"'{given[name]}'" if name == "state" and given[name] is not None else f":{name}"
                for name in given
            ]
            statement = f"INSERT INTO oban_jobs ({', '.join(given)}) VALUES ({', '.join(shown)})"
            parameters = {name: value for name, value in given.items() if f":{name}" in shown}
            with pytest.raises(DBAPIError, match=r"(?i)constraint|enum|null"):
                connection.execute(text(statement), parameters)
            connection.rollback()
        assert connection.scalar(text("SELECT count(*) FROM oban_jobs")) == 0


def test_values_at_the_limits_are_allowed(url: URL) -> None:
    with sync_engine(url).begin() as connection:
        for state in STATES:
            connection.execute(
                text(
                    "INSERT INTO oban_jobs (worker, state, priority, attempt, max_attempts)"
                    f" VALUES ('a', '{state}', 9, 32767, 32767)"
                )
            )
        assert connection.scalar(text("SELECT count(*) FROM oban_jobs")) == len(STATES)


def listen(connection: Connection, schema: str) -> Any:
    driver: Any = connection.connection.driver_connection
    driver.autocommit = True
    driver.execute(f'LISTEN "{schema}.oban_insert"')
    return driver


@pytest.mark.parametrize("schema", ["public", "jobs"])
def test_an_insert_announces_each_queue_once(postgresql_with_jobs: URL, schema: str) -> None:
    engine = sync_engine(postgresql_with_jobs)
    with engine.connect() as listening, engine.connect() as connection:
        driver = listen(listening, schema)
        queues = ["a", "b", "a", 'quo"te', "back\\slash", "ünï", "a", "x" * 1025]
        values = ", ".join(f"('any', :queue_{n})" for n in range(len(queues)))
        connection.execute(
            text(f"INSERT INTO {schema}.oban_jobs (worker, queue) VALUES {values}"),
            {f"queue_{n}": queue for n, queue in enumerate(queues)},
        )
        connection.execute(
            text(
                f"INSERT INTO {schema}.oban_jobs (worker, queue, state) VALUES"
                " ('any', 'later', 'scheduled'), ('any', 'held', 'suspended'), ('any', 'done', 'completed')"
            )
        )
        connection.execute(text(f"INSERT INTO {schema}.oban_jobs (worker) SELECT 'any' WHERE false"))
        connection.commit()
        payloads = [notice.payload for notice in driver.notifies(timeout=0.5)]
    announced = [json.loads(payload) for payload in payloads]
    assert sorted(announced, key=str) == sorted(({"queue": name} for name in set(queues[:-1])), key=str)


def test_an_insert_that_is_rolled_back_announces_nothing(postgresql_with_jobs: URL) -> None:
    engine = sync_engine(postgresql_with_jobs)
    with engine.connect() as listening, engine.connect() as connection:
        driver = listen(listening, "public")
        connection.execute(text("INSERT INTO oban_jobs (worker, queue) VALUES ('any', 'lost')"))
        connection.rollback()
        connection.execute(text("INSERT INTO oban_jobs (worker, queue) VALUES ('any', 'kept')"))
        connection.commit()
        payloads = [json.loads(notice.payload) for notice in driver.notifies(timeout=0.3)]
    assert payloads == [{"queue": "kept"}]
