"""The trigger notifies stagers of scheduled jobs, however those are inserted."""

import json
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import create_async_engine

from oban import Job, Oban, Worker, migration
from tests.support.schema import described, sync_engine
from tests.support.waiting import eventually


def signals(url: URL, schema: str, *values: str, commit: bool = True) -> list[dict[str, Any]]:
    """Insert rows with these states and times in one statement, and return the payloads on `oban_signal`."""
    with sync_engine(url).connect() as listening, sync_engine(url).connect() as connection:
        driver: Any = listening.connection.driver_connection
        driver.autocommit = True
        driver.execute(f'LISTEN "{schema}.oban_signal"')
        rows = ", ".join(f"('any', {value})" for value in values)
        insert = f"INSERT INTO {schema}.oban_jobs (worker, state, scheduled_at) VALUES {rows}"
        connection.execute(text(insert.replace("::", r"\:\:")))
        if commit:
            connection.execute(text(f"NOTIFY \"{schema}.oban_signal\", '{{}}'"))
            connection.commit()
            heard = [json.loads(notice.payload) for notice in driver.notifies(timeout=5, stop_after=1)]
            heard += [json.loads(notice.payload) for notice in driver.notifies(timeout=0)]
            heard.remove({})
            return heard
        connection.rollback()
        return [json.loads(notice.payload) for notice in driver.notifies(timeout=0.1)]


def at(seconds: float, state: str = "scheduled") -> str:
    return f"'{state}', timezone('UTC', clock_timestamp()) + interval '{seconds} s'"


@pytest.mark.parametrize("schema", ["public", "jobs"])
def test_an_insert_announces_the_earliest_scheduled_job(postgresql_with_jobs: URL, schema: str) -> None:
    (signal,) = signals(postgresql_with_jobs, schema, at(90), at(60), at(5, "available"), at(5, "retryable"))
    assert signal.keys() == {"action", "in"}
    assert signal["action"] == "stage"
    assert 59 < signal["in"] <= 60
    # Overdue, and beyond what a payload can express.
    assert signals(postgresql_with_jobs, schema, at(-60)) == [{"action": "stage", "in": 0}]
    assert signals(postgresql_with_jobs, schema, "'scheduled', '-infinity'") == [{"action": "stage", "in": 0}]
    (signal,) = signals(
        postgresql_with_jobs, schema, "'scheduled', '294276-12-31'", "'scheduled', 'infinity'"
    )
    assert signal["in"] > 9e12


@pytest.mark.parametrize(
    "value", [at(60, "available"), at(60, "suspended"), at(60, "completed"), "'scheduled', 'infinity'"]
)
def test_an_insert_without_one_announces_nothing(postgresql_with_jobs: URL, value: str) -> None:
    assert signals(postgresql_with_jobs, "public", value) == []


def test_an_insert_that_is_rolled_back_announces_nothing(postgresql_with_jobs: URL) -> None:
    assert signals(postgresql_with_jobs, "public", at(60), commit=False) == []


def test_going_down_restores_the_function(empty_url: URL) -> None:
    migration.upgrade(empty_url, revision="0002")
    before = described(empty_url)
    migration.upgrade(empty_url)
    changed = empty_url.get_backend_name() == "postgresql"
    assert (described(empty_url).get("functions") != before.get("functions")) == changed
    migration.downgrade(empty_url, revision="0002")
    assert described(empty_url) == before


class Scheduled(Worker):
    async def process(self, job: Job) -> None:
        pass


async def test_a_job_inserted_by_raw_sql_starts_on_time(postgresql_with_jobs: URL) -> None:
    rare = {"stage_interval": 300.0, "poll_interval": 300.0, "watch_interval": 300.0}
    async with Oban(postgresql_with_jobs, queues={"default": 1}, **rare) as oban:  # type: ignore[arg-type]
        # The stager sleeps until the end of its interval.
        await eventually(lambda: oban.check_queue("default") is not None)
        engine = create_async_engine(postgresql_with_jobs)
        async with engine.begin() as connection:
            await connection.execute(
                text(
                    "INSERT INTO oban_jobs (worker, state, scheduled_at) VALUES"
                    " (:worker, 'scheduled', timezone('UTC', now()) + interval '0.3 s')"
                ),
                {"worker": Scheduled.new().worker},
            )
        await engine.dispose()

        async def ran() -> bool:
            return (await oban.list_jobs())[0].state == "completed"

        await eventually(ran)
        (job,) = await oban.list_jobs()
        assert job.attempted_at is not None
        assert 0 <= (job.attempted_at - job.scheduled_at).total_seconds() < 5
