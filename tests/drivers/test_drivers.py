"""The features that work with every driver, in a session of the application. The docs' table shows them."""

import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import URL, func, insert, select

from oban import Job, JobState, Oban, SyncOban, Worker
from oban.runner.execution.producer import OVERLAPPED_LIMIT
from tests.drivers.callers import ASYNC, DRIVERS, SYNC, Application, Order, factory_for, is_sqlite
from tests.support.options import NO_POLLING
from tests.support.rows import TABLE
from tests.support.waiting import eventually

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "drivers.md"
FEATURES = (
    *("enqueue in a transaction", "rollback", "savepoint", "bulk insert"),
    *("manage in a transaction", "client", "run jobs"),
)
#: The driver and feature of each test that has passed.
shown: set[tuple[str, str]] = set()


class Ship(Worker):
    """Records which orders it has shipped."""

    shipped: list[int]

    async def process(self, job: Job) -> None:
        self.shipped.append(job.args["order"])


@pytest.fixture(scope="module", params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def url(driver: str, request: pytest.FixtureRequest) -> Iterator[URL]:
    factory = factory_for(driver, request)
    made = factory.create()
    yield made
    factory.drop(made)


@pytest.fixture
async def app(driver: str, url: URL) -> AsyncIterator[Application]:
    Ship.shipped = []
    application = Application(driver, url)
    await application.make_tables()
    yield application
    await application.dispose()


def tick(app: Application, feature: str) -> None:
    shown.add((app.driver, feature))


async def stored(app: Application) -> list[tuple[int, str]]:
    """The order and state of every job by id, as another session sees them."""
    async with app.session() as session:
        jobs = (await session.execute(select(Job).order_by(Job.id))).scalars().all()
        return [(job.args.get("order"), str(job.state)) for job in jobs]


async def orders(app: Application) -> int:
    async with app.session() as session:
        count: int = (await session.execute(select(func.count()).select_from(Order))).scalar_one()
        return count


async def test_a_job_added_to_the_session_exists_and_starts_when_it_commits(app: Application) -> None:
    async with Oban(app.url, queues={"default": 5}, **NO_POLLING), app.session() as session:
        order = Order(customer="a")
        session.add(order)
        await session.run(lambda sync: sync.flush())
        session.add(Ship.new({"order": order.id}))
        await session.run(lambda sync: sync.flush())
        assert (await stored(app), await orders(app)) == ([], 0)
        assert Ship.shipped == []
        await session.commit()
        # Long before the next poll.
        await eventually(lambda: Ship.shipped == [1], 5)
        assert await orders(app) == 1
        await app.oban.enqueue(Ship.new({"order": 2}), session=session.own)
        assert Ship.shipped == [1]
        await session.commit()
        await eventually(lambda: Ship.shipped == [1, 2], 5)
    tick(app, "enqueue in a transaction")


async def test_a_rollback_leaves_nothing_and_the_same_job_can_be_added_again(app: Application) -> None:
    job, other = Ship.new({"order": 7}), Ship.new({"order": 8})
    async with app.session() as session:
        session.add(Order(customer="a"), job)
        await app.oban.enqueue(other, session=session.own)
        await session.rollback()
        assert (await stored(app), await orders(app)) == ([], 0)
        session.add(job)
        await app.oban.enqueue(other, session=session.own)
        await session.commit()
    assert await stored(app) == [(7, "available"), (8, "available")]
    tick(app, "rollback")


async def test_a_savepoint_that_is_rolled_back_takes_its_jobs_with_it(app: Application) -> None:
    async with app.session() as session:
        session.add(Ship.new({"order": 1}))
        savepoint = await session.run(lambda sync: sync.begin_nested())
        session.add(Ship.new({"order": 2}))
        await app.oban.enqueue(Ship.new({"order": 3}), session=session.own)
        await session.run(lambda _: savepoint.rollback())
        savepoint = await session.run(lambda sync: sync.begin_nested())
        session.add(Ship.new({"order": 4}))
        await app.oban.enqueue(Ship.new({"order": 5}), session=session.own)
        await session.run(lambda _: savepoint.commit())
        await session.commit()
    assert await stored(app) == [(1, "available"), (4, "available"), (5, "available")]
    tick(app, "savepoint")


async def test_every_bulk_insert_derives_the_states_from_the_times(app: Application) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    earlier = datetime(2020, 1, 1, tzinfo=UTC)

    def three() -> list[Job]:
        return [
            Ship.new({"order": 1}),
            Ship.new({"order": 2}, scheduled_at=later),
            Ship.new({"order": 3}, scheduled_at=earlier),
        ]

    def rows() -> list[dict[str, object]]:
        common = {"worker": Ship.worker_name}
        return [
            {**common, "args": {"order": 1}, "scheduled_at": earlier},
            {**common, "args": {"order": 2}, "scheduled_at": later},
            {**common, "args": {"order": 3}, "scheduled_at": earlier},
        ]

    async with app.session() as session:
        session.add(*three())
        await session.run(lambda sync: sync.flush())
        await session.run(lambda sync: sync.bulk_save_objects(three()))
        await session.execute(insert(Job), rows())
        await session.execute(insert(Job).values(rows()))
        await session.execute(insert(TABLE), rows())
        await session.execute(
            insert(Job), [{"worker": Ship.worker_name, "args": {"order": order}} for order in (1, 3)]
        )
        await app.oban.enqueue_many(three(), session=session.own)
        await session.commit()
        found = list((await session.execute(select(Job).order_by(Job.id))).scalars())
    due = {1: JobState.AVAILABLE, 2: JobState.SCHEDULED, 3: JobState.AVAILABLE}
    assert [(job.args["order"], job.state) for job in found] == [
        *[(order, state) for _ in range(5) for order, state in due.items()],
        *[(order, JobState.AVAILABLE) for order in (1, 3)],
        *due.items(),
    ]
    assert {job.scheduled_at for job in found if job.state is JobState.SCHEDULED} == {later}
    assert {(job.max_attempts, job.queue, *job.tags) for job in found} == {(20, "default")}
    async with Oban(app.url, queues={"default": OVERLAPPED_LIMIT}, **NO_POLLING):
        await eventually(lambda: sorted(Ship.shipped) == [1] * 7 + [3] * 7)
    tick(app, "bulk insert")


async def test_management_belongs_to_the_transaction(app: Application) -> None:
    kept, cancelled, deleted, updated = await app.oban.enqueue_many(
        Ship.new({"order": order}, schedule_in=60) for order in range(4)
    )
    before = await stored(app)

    async def manage(session: object) -> None:
        assert await app.oban.retry_job(kept, session=session)
        assert (
            await app.oban.cancel_many_jobs(select(Job).where(Job.id == cancelled.id), session=session) == 1
        )
        assert await app.oban.delete_job(deleted.id, session=session)
        changes = {"args": {"order": 9}, "schedule_in": 0}
        assert (await app.oban.update_job(updated, changes, session=session)).args == {"order": 9}

    async with app.session() as session:
        await manage(session.own)
        assert await stored(app) == before
        await session.rollback()
        assert await stored(app) == before
        await manage(session.own)
        await session.commit()
    assert await stored(app) == [(0, "available"), (1, "cancelled"), (9, "available")]
    tick(app, "manage in a transaction")


async def test_the_client_works_without_a_session(app: Application) -> None:
    first = await app.oban.enqueue(Ship.new({"order": 1}, tags=["x", "é"], meta={"a": [None, 1.5]}))
    many = await app.oban.enqueue_many(*(Ship.new({"order": order}) for order in (2, 3)))
    read = await app.oban.get_job(first.id)
    assert (read.tags, read.meta, read.state) == (["x", "é"], {"a": [None, 1.5]}, "available")
    assert await app.oban.cancel_many_jobs([first, *many]) == 3
    assert await app.oban.retry_job(many[0])
    assert many[0].state is JobState.AVAILABLE
    both = await app.oban.update_many_jobs(many, lambda job: {"priority": job.priority + 2})
    assert [job.priority for job in both] == [2, 2]
    assert await app.oban.delete_many_jobs([many[1].id, 404]) == 1
    assert [job.id for job in await app.oban.list_jobs(select(Job).where(Job.priority == 2))] == [many[0].id]
    await app.oban.pause_queue("default")
    async with Oban(app.url, queues={"default": 5}, **NO_POLLING) as node:
        await eventually(lambda: node.check_queue("default").paused)  # type: ignore[union-attr]
        assert [info.queue for info in await app.oban.check_cluster()] == ["default"]
        await app.oban.resume_queue("default")
        await eventually(lambda: Ship.shipped == [2], 5)
    tick(app, "client")


async def test_a_node_runs_jobs_through_this_driver(app: Application) -> None:
    if app.driver in SYNC:
        with pytest.raises(ValueError, match="SyncOban runs no jobs"):
            SyncOban(app.engine, queues={"default": 1})  # type: ignore[arg-type]
        return
    await app.oban.enqueue_many(Ship.new({"order": order}) for order in range(20))
    async with Oban(app.engine, queues={"default": 5}, **NO_POLLING):  # type: ignore[arg-type]
        await eventually(lambda: sorted(Ship.shipped) == list(range(20)))
        await eventually(lambda: _all_completed(app))
    tick(app, "run jobs")


async def _all_completed(app: Application) -> bool:
    return {state for _, state in await stored(app)} == {"completed"}


def table() -> str:
    """The table in the docs, with a tick for each feature whose test has passed."""
    lines = ["| driver | database | " + " | ".join(FEATURES) + " |", "|---" * (len(FEATURES) + 2) + "|"]
    for driver in DRIVERS:
        database = "SQLite" if is_sqlite(driver) else "PostgreSQL"
        ticks = ["✓" if (driver, feature) in shown else "–" for feature in FEATURES]
        lines.append(f"| {driver} | {database} | " + " | ".join(ticks) + " |")
    return "\n".join(lines)


def test_the_table_in_the_docs_matches_these_tests(request: pytest.FixtureRequest) -> None:
    here = [item for item in request.session.items if item.path == request.path]
    if len(here) < len(DRIVERS) * len(FEATURES) + 1:
        pytest.skip("only some of the tests of this module have run")
    start, end = "<!-- what tests/drivers has shown -->", "<!-- end -->"
    before, _, rest = PAGE.read_text().partition(start)
    written, _, after = rest.partition(end)
    if os.environ.get("OBAN_WRITE_DOCS"):
        PAGE.write_text(f"{before}{start}\n{table()}\n{end}{after}")
    else:
        assert written.strip() == table()
    assert {driver for driver, feature in shown if feature == "run jobs"} == set(ASYNC)
