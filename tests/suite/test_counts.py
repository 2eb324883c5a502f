"""Jobs are counted by queue and state with one statement, in general or as a select(Job) finds them."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL, select, text, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from oban import InvalidJob, Job, JobState, Oban, SyncOban, filters
from oban.errors import InvalidTarget
from tests.support.databases import DATABASES
from tests.support.rows import STATES, delete_rows, insert_rows, lasting_url, row
from tests.support.statements import recorded

ZEROS: dict[str, int] = dict.fromkeys(JobState, 0)


@pytest.fixture(scope="module", params=DATABASES)
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


def some(**counts: int) -> dict[str, int]:
    return {**ZEROS, **counts}


async def fill(oban: Oban) -> None:
    await delete_rows(oban.engine)
    rows = [row(state, queue="all") for number, state in enumerate(STATES) for _ in range(number + 1)]
    rows += [row("available", queue="few", tags=["x"], priority=0), row("completed", queue="few")]
    await insert_rows(oban.engine, *rows)


ALL = some(**{state: number + 1 for number, state in enumerate(STATES)})
FEW = some(available=1, completed=1)


async def test_every_state_of_each_queue_is_counted_with_one_statement(oban: Oban) -> None:
    await fill(oban)
    with recorded(oban.engine) as sent:
        counts = await oban.count_jobs()
    assert len(sent) == 1
    assert list(counts.items()) == [("all", ALL), ("few", FEW)]
    assert counts["few"]["available"] == counts["few"][JobState.COMPLETED] == 1
    assert [type(state) for state in counts["few"]] == [JobState] * 8
    assert await oban.count_jobs(queue="few") == {"few": FEW}
    assert await oban.count_jobs(queue="empty") == {"empty": ZEROS}
    await delete_rows(oban.engine)
    assert await oban.count_jobs() == {}


async def test_a_statement_decides_which_jobs_are_counted_each_once(oban: Oban) -> None:
    await fill(oban)
    twice = aliased(Job)
    cases: list[tuple[Any, dict[str, Any]]] = [
        (select(Job), {"all": ALL, "few": FEW}),
        (select(Job).where(true()).order_by(Job.priority).limit(1), {"few": some(available=1)}),
        (select(Job).where(filters.tags("x")), {"few": some(available=1)}),
        (
            select(Job).where(Job.state == JobState.COMPLETED),
            {"all": some(completed=6), "few": some(completed=1)},
        ),
        (select(Job).join(twice, twice.queue == Job.queue).where(Job.queue == "few"), {"few": FEW}),
        (select(twice).where(twice.queue == "few"), {"few": FEW}),
        (select(Job).where(Job.queue == "nobody"), {}),
    ]
    for statement, expected in cases:
        assert await oban.count_jobs(statement) == expected, statement
    assert await oban.count_jobs(select(Job).where(Job.priority == 3), queue="few") == {
        "few": some(completed=1)
    }


async def test_the_callers_transaction_is_counted_and_wrong_arguments_are_refused(
    oban: Oban, url: URL
) -> None:
    await fill(oban)
    async with AsyncSession(oban.engine) as session:
        await oban.enqueue(Job(worker="x", queue="few"), session=session)
        assert (await oban.count_jobs(session=session))["few"] == some(available=2, completed=1)
    wrong: Any = oban
    for statement in (select(Job.id), select(1), "few", text("SELECT 1")):
        with pytest.raises(InvalidTarget):
            await wrong.count_jobs(statement)
    for queue in ("", "*", 5):
        with pytest.raises(InvalidJob):
            await wrong.count_jobs(queue=queue)
    driver = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}[url.get_backend_name()]
    with SyncOban(url.set(drivername=driver)) as client:
        assert client.count_jobs() == {"all": ALL, "few": FEW}
        assert client.count_jobs(select(Job).where(Job.queue == "few")) == {"few": FEW}


async def test_names_of_queues_that_another_program_has_invented_are_left_out(sqlite_url: URL) -> None:
    async with Oban(sqlite_url) as oban:
        await fill(oban)
        async with oban.engine.begin() as connection:
            await connection.execute(text("UPDATE oban_jobs SET queue = x'00ff' WHERE queue = 'all'"))
        assert await oban.count_jobs() == {"few": FEW}
