"""What a job with a session sends to the database: its own statements, its outcome, and nothing else.

On PostgreSQL the connection itself is read, which shows every round trip, also those that neither SQLAlchemy
nor the server's log mentions. SQLite reports each statement that it runs.
"""

from typing import Any

from sqlalchemy import URL, event, insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from oban import Job, JobState, Oban, Worker
from tests.runner.effects import Effect, effects_table
from tests.support.jobs import reaches
from tests.support.options import NO_POLLING
from tests.support.wire import Wiretap

#: More jobs than psycopg runs before it prepares a statement.
WARM = 8
ONE_AT_A_TIME: dict[str, Any] = {"queues": {"default": 1}, **NO_POLLING}
#: The beginnings of the statements of a job below. On SQLite, another one stores the attempt.
WRITES = ["INSERT INTO effects (name)", "INSERT INTO effects (name)"]
TRANSACTION = ["BEGIN", *WRITES, "WITH acknowledged AS (UPDATE", "COMMIT"]
SQLITE_TRANSACTION = [
    "BEGIN",
    *WRITES,
    "INSERT INTO oban_attempts (job_id,",
    "UPDATE oban_jobs SET state='completed',",
    "COMMIT",
]


class Writes(Worker):
    """Writes twice, and returns nothing."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        for part in ("a", "b"):
            await session.execute(insert(Effect).values(name=f"{job.id}/{part}"))


async def run(oban: Oban, jobs: int) -> None:
    """Run jobs one after the other."""
    for _ in range(jobs):
        await reaches(oban, await oban.enqueue(Writes.new()), JobState.COMPLETED)


def shortened(statement: str) -> str:
    return " ".join(statement.split(" ")[:4])


async def test_a_warm_job_makes_the_round_trips_of_its_transaction_only(postgresql_url: URL) -> None:
    arguments = {"ssl": False} if postgresql_url.drivername.endswith("asyncpg") else {"sslmode": "disable"}
    with effects_table(postgresql_url):
        async with Oban(postgresql_url) as client, Wiretap(postgresql_url) as tap:
            engine = create_async_engine(tap.url, connect_args=arguments)
            async with Oban(engine, **ONE_AT_A_TIME):
                await run(client, WARM)
                connections, before = tap.connections, len(tap.trips)
                await run(client, 2)
                trips = tap.trips[before:]
                assert tap.connections == connections
            await engine.dispose()
    [own] = {trip.connection for trip in trips if any("INTO effects" in sent for sent in trip.sent)}
    assert [[shortened(sent) for sent in trip.sent] for trip in trips if trip.connection == own] == [
        [statement] for statement in 2 * TRANSACTION
    ]
    # On other connections, the producer claims jobs.
    elsewhere = [sent for trip in trips if trip.connection != own for sent in trip.sent]
    assert not [sent for sent in elsewhere if "'completed'" in sent or sent.startswith("SELECT pg_")]


def trace(engine: AsyncEngine, statements: list[tuple[int, str]]) -> None:
    """Add what SQLite runs on each connection of an engine, with a number for the connection."""

    def connected(connection: Any, _: object) -> None:
        def ran(statement: str) -> None:
            statements.append((id(connection), " ".join(statement.split())))

        connection.run_async(lambda driver: driver.set_trace_callback(ran))

    event.listen(engine.sync_engine, "connect", connected)


async def test_a_warm_job_runs_the_statements_of_its_transaction_only(sqlite_url: URL) -> None:
    engine, statements = create_async_engine(sqlite_url), list[tuple[int, str]]()
    trace(engine, statements)
    with effects_table(sqlite_url):
        async with Oban(sqlite_url) as client, Oban(engine, **ONE_AT_A_TIME):
            await run(client, WARM)
            before = len(statements)
            await run(client, 2)
            ran = statements[before:]
        await engine.dispose()
    [own] = {connection for connection, statement in ran if "INTO effects" in statement}
    assert [shortened(statement) for connection, statement in ran if connection == own] == (
        2 * SQLITE_TRANSACTION
    )
