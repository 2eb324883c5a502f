"""F19: outcomes that no database can store, and a database that refuses one in ten acknowledgements."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import URL, text

from oban import Cancel, Job, Oban, Record, Snooze, Worker
from oban.runner.execution.producer import OVERLAPPED_LIMIT
from tests.faults import recording
from tests.faults.cluster import report
from tests.faults.invariants import check
from tests.support.internals import runner_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

JOBS = 1_000
MAX_ERROR = 64 * 1024

# Only a sequence can count within a statement that is refused.
POSTGRESQL = """
CREATE SEQUENCE refusals;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF old.state = 'executing' AND mod(nextval('refusals'), 10) = 0 THEN
    RAISE EXCEPTION 'refused by a trigger';
  END IF;
  RETURN new;
END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON oban_jobs FOR EACH ROW EXECUTE FUNCTION refuse();
"""
SQLITE = """
CREATE TRIGGER refuse BEFORE UPDATE ON oban_jobs WHEN old.state = 'executing' AND random() % 10 = 0
BEGIN SELECT RAISE(ABORT, 'refused by a trigger'); END
"""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def raising(error: BaseException) -> Callable[[], Any]:
    def end() -> Any:
        raise error

    return end


#: How a job ends, and its state after that.
POISON: dict[str, tuple[Callable[[], Any], str]] = {
    "NUL": (raising(ValueError("a \x00 byte")), "discarded"),
    "a lone surrogate": (raising(ValueError("\ud800 alone \udfff")), "discarded"),
    "10 MB": (raising(ValueError("x" * 10_000_000)), "discarded"),
    "10 MB of NUL": (raising(ValueError("\x00" * 10_000_000)), "discarded"),
    "unprintable": (raising(Unprintable()), "discarded"),
    "a group of them": (raising(ExceptionGroup("\x00", [Unprintable(), ValueError("\ud800")])), "discarded"),
    "quotes": (raising(ValueError("""'"\\u0000 {} %s :name $$ \u2028""")), "discarded"),
    "a reason with NUL": (lambda: Cancel("why \x00\ud800"), "cancelled"),
    "a reason of 10 MB": (lambda: Cancel("x" * 10_000_000), "cancelled"),
    "a record that is no JSON": (lambda: Record("\x00"), "discarded"),
}


class Poison(Worker, name="ack.Poison", max_attempts=1):
    """Ends as its args say, mostly successfully."""

    ended: list[float]

    async def process(self, job: Job) -> Any:
        end, _ = POISON.get(job.args["end"], (lambda: Record(job.args), ""))
        Poison.ended.append(time.monotonic())
        return end()


class Sleepy(Worker, name="ack.Sleepy", max_attempts=1):
    async def process(self, job: Job) -> Any:
        Poison.ended.append(time.monotonic())
        return None if "snoozed" in job.meta else Snooze(0.1)


@pytest.fixture(params=["sqlite", "asyncpg", "psycopg"])
def url(request: pytest.FixtureRequest) -> URL:
    if request.param == "sqlite":
        made: URL = request.getfixturevalue("sqlite_url")
        return made
    made = request.getfixturevalue("postgresql_url")
    return made.set(drivername=f"postgresql+{request.param}")


async def test_refused_outcomes_are_stored_eventually_and_do_not_delay_others(
    url: URL, rng: random.Random
) -> None:
    Poison.ended = []
    recording.install(url)
    ends = [*POISON, *POISON, *["well"] * (JOBS - 2 * len(POISON) - 10)]
    rng.shuffle(ends)
    async with Oban(url, queues={"default": OVERLAPPED_LIMIT}, shutdown_grace_period=1.0) as oban:
        with recording.connected(url) as connection:
            connection.exec_driver_sql(SQLITE if url.get_backend_name() == "sqlite" else POSTGRESQL)
        jobs = await oban.enqueue_many(
            [*(Poison.new({"end": end}) for end in ends), *(Sleepy.new() for _ in range(10))]
        )

        def final() -> bool:
            with recording.connected(url) as connection:
                statement = (
                    "SELECT count(*) FROM oban_jobs WHERE state IN ('completed', 'cancelled', 'discarded')"
                )
                return bool(connection.scalar(text(statement)) == JOBS)

        # The queue is idle from now on, so no fetch stores the outcomes along with its own work.
        await eventually(lambda: len(Poison.ended) == JOBS + 10, 30)
        await eventually(lambda: asyncio.to_thread(final), 5)
        assert time.monotonic() - max(Poison.ended) < 5
        (producer,) = runner_of(oban).producers.values()
        await eventually(lambda: not producer.runs and not len(producer.acknowledger), 1)
        rows = {job.id: job for job in await oban.list_jobs()}
    for job in jobs:
        row = rows[job.id]
        end = job.args.get("end", "well")
        _, state = POISON.get(end, (None, "completed"))
        assert (row.state, row.attempt) == (state, 1), end
        assert [entry["attempt"] for entry in row.errors] == [1] * (state != "completed"), end
        for entry in row.errors:
            assert 5 <= len(entry["error"].encode()) < MAX_ERROR, end
    # Each job began once, except for those that asked for another run.
    assert len(Poison.ended) == JOBS + 10
    history = recording.read(url)
    found = check(history, lease=60.0, silent=set(rows))
    assert not found, report(found)
