"""`SyncOban` works in threads and with every kind of session, and refuses other ones."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakSet

import pytest
from sqlalchemy import Connection, Engine, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from oban import Job, JobState, SyncOban, Worker, job, migration
from oban.errors import (
    ConfigError,
    InstanceNotFound,
    InvalidJob,
    InvalidTarget,
    JobNotFound,
    SchemaMissing,
)
from tests.drivers.callers import SYNC, Application, factory_for
from tests.support.databases import Factory

THREADS = 8


class Ship(Worker):
    def process(self, job: Job) -> None:
        return None


@job
def ship(number: int) -> None: ...


@pytest.fixture(scope="module", params=SYNC)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """The engine of an application, through each driver."""
    factory = factory_for(request.param, request)
    url = factory.create()
    made = Application(request.param, url).engine
    assert isinstance(made, Engine)
    yield made
    made.dispose()
    factory.drop(url)


@pytest.fixture
def oban(engine: Engine) -> Iterator[SyncOban]:
    with SyncOban(engine) as client:
        yield client
        client.delete_many_jobs(client.list_jobs())


@pytest.fixture(params=["Session", "scoped_session", "Connection"])
def session(
    engine: Engine, request: pytest.FixtureRequest
) -> Iterator[Session | scoped_session[Session] | Connection]:
    """A session of a sync application, of each kind."""
    if request.param == "Connection":
        with engine.connect() as connection:
            yield connection
    elif request.param == "Session":
        with Session(engine) as made:
            yield made
    else:
        scoped = scoped_session(sessionmaker(engine))
        yield scoped
        scoped.remove()


def test_every_kind_of_session_commits_or_rolls_back_its_jobs(
    oban: SyncOban, session: Session | scoped_session[Session] | Connection
) -> None:
    job = oban.enqueue(Ship.new({"n": 1}), session=session)
    assert oban.get_job(job.id or 0) is None
    session.rollback()
    assert oban.list_jobs() == []
    first, second = oban.enqueue_many([Ship.new({"n": 1}), Ship.new({"n": 2})], session=session)
    assert oban.cancel_job(first, session=session)
    assert oban.update_job(second, {"priority": 5}, session=session).priority == 5
    session.commit()
    assert [(job.state, job.priority) for job in oban.list_jobs()] == [("cancelled", 0), ("available", 5)]


def test_a_stream_is_inserted_batch_by_batch(
    oban: SyncOban, session: Session | scoped_session[Session] | Connection
) -> None:
    alive: WeakSet[Job] = WeakSet()
    most = 0

    def jobs() -> Iterator[Job]:
        nonlocal most
        for number in range(25):
            alive.add(job := Ship.new({"n": number}))
            most = max(most, len(alive))
            yield job
            del job

    assert oban.enqueue_stream(jobs(), batch=10, session=session) == 25
    assert oban.list_jobs() == []
    session.rollback()
    assert oban.enqueue_stream(jobs(), batch=10) == 25
    assert [job.args["n"] for job in oban.list_jobs()] == [*range(25)]
    assert most <= 11


def test_a_function_is_enqueued_in_the_transaction_of_the_caller(
    oban: SyncOban, session: Session | scoped_session[Session] | Connection
) -> None:
    assert SyncOban.get_instance() is oban
    ship.enqueue_sync(1, session=session)
    session.rollback()
    ship.enqueue_sync(2, session=session)
    assert oban.list_jobs() == []
    session.commit()
    assert [job.args for job in oban.list_jobs()] == [{"number": 2}]


def test_jobs_are_read_page_by_page_and_in_batches(
    oban: SyncOban, session: Session | scoped_session[Session] | Connection
) -> None:
    ids = [job.id for job in oban.enqueue_many(Ship.new() for _ in range(7))]
    assert [job.id for job in oban.list_jobs(limit=3, after=ids[1])] == ids[2:5]
    seen = []
    for found in oban.iterate_jobs(batch=2):
        oban.delete_job(found)
        seen.append(found.id)
        if len(seen) == 3:
            break
    assert seen == ids[:3]
    assert [job.id for job in oban.iterate_jobs(session=session, batch=2)] == ids[3:]
    session.rollback()
    with pytest.raises(InvalidTarget, match="has another one"):
        oban.iterate_jobs(select(Job).order_by(Job.priority))


def test_threads_share_one_client(oban: SyncOban) -> None:
    job = oban.enqueue(Ship.new(max_attempts=1))

    def work(number: int) -> int:
        mine = oban.enqueue_many(Ship.new({"n": number}) for _ in range(10))
        oban.update_job(job.id, lambda found: {"max_attempts": found.max_attempts + 1})
        return oban.cancel_many_jobs(mine)

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(work, range(THREADS))) == [10] * THREADS
    assert len(oban.list_jobs(select(Job).where(Job.state == JobState.CANCELLED))) == 10 * THREADS
    found = oban.get_job(job.id)
    assert found is not None
    assert found.max_attempts == 1 + THREADS


def test_errors_are_those_of_the_async_client(oban: SyncOban) -> None:
    job = oban.enqueue(Ship.new())
    with pytest.raises(InvalidTarget, match="was enqueued before"):
        oban.enqueue(job)
    with pytest.raises(InvalidTarget, match="a Job or an integer id is needed"):
        oban.cancel_job("x")  # type: ignore[arg-type]
    with pytest.raises(InvalidTarget, match="jobs are needed, not NoneType"):
        oban.enqueue_many(None)  # type: ignore[arg-type]
    with pytest.raises(InvalidTarget, match="session must be a Session or Connection, not str"):
        oban.enqueue(Ship.new(), session="x")  # type: ignore[arg-type]
    with pytest.raises(JobNotFound):
        oban.update_job(404, {"priority": 1})
    with pytest.raises(InvalidJob, match="priority"):
        oban.update_job(job, {"priority": 10})
    with pytest.raises(InvalidJob, match="queue"):
        oban.pause_queue("no name")
    assert oban.check_queue("default") is None
    assert oban.check_all_queues() == []
    assert not oban.is_leader
    assert len(oban.list_jobs()) == 1


def test_a_thread_waits_until_its_job_has_ended(oban: SyncOban) -> None:
    job = oban.enqueue(Ship.new())
    with pytest.raises(TimeoutError, match=f"job {job.id} has not ended after 0 seconds"):
        oban.wait(job, timeout=0)
    with pytest.raises(TimeoutError, match="the queue default is not empty after 0 seconds"):
        oban.wait_until_empty("default", timeout=0)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(oban.wait, job, timeout=60)
        emptied = pool.submit(oban.wait_until_empty, timeout=60)
        oban.cancel_job(job.id)
        assert waiting.result() is job
        assert job.state == "cancelled"
        emptied.result()
    oban.delete_job(job)
    with pytest.raises(JobNotFound):
        oban.wait(job)


def test_a_database_without_tables_raises_schema_missing(request: pytest.FixtureRequest) -> None:
    factory: Factory = request.getfixturevalue("sqlite_factory")
    url = factory.create(empty=True).set(drivername="sqlite")
    with SyncOban(url) as oban:
        with pytest.raises(SchemaMissing, match="oban install"):
            oban.enqueue(Ship.new())
        migration.upgrade(oban.engine)
        assert oban.enqueue(Ship.new()).id == 1


def test_a_database_in_memory_is_one_for_all_threads() -> None:
    with SyncOban("sqlite://") as oban:
        migration.upgrade(oban.engine)
        with ThreadPoolExecutor(THREADS) as pool:
            jobs = list(pool.map(lambda _: oban.enqueue(Ship.new()), range(THREADS)))
        assert sorted(job.id for job in oban.list_jobs()) == sorted(job.id for job in jobs)


@pytest.mark.parametrize(
    ("unusable", "message"),
    [
        ("postgresql+asyncpg://u:s3cret@h/d", "asyncpg works with asyncio only; use psycopg or"),
        ("sqlite+aiosqlite://", "aiosqlite works with asyncio only; use pysqlite"),
        ("mysql://h/d", "mysql is not supported"),
        (
            create_async_engine("sqlite+aiosqlite://").sync_engine,
            "asyncio only; use Oban for",
        ),
        (
            create_async_engine("sqlite+aiosqlite://"),
            "an Engine or a database URL is needed",
        ),
        (None, "not NoneType"),
    ],
    ids=["asyncpg", "aiosqlite", "mysql", "sync_engine", "async engine", "None"],
)
def test_unusable_engines_are_refused(unusable: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        SyncOban(unusable)  # type: ignore[arg-type]
    assert "s3cret" not in str(caught.value)


def test_the_newest_sync_client_of_a_name_is_found_next_to_async_ones() -> None:
    oban = SyncOban("sqlite://", name="sync-only")
    assert SyncOban.get_instance("sync-only") is oban
    newer = SyncOban("sqlite://", name="sync-only")
    assert SyncOban.get_instance("sync-only") is newer
    with pytest.raises(InstanceNotFound, match="no SyncOban named 'nobody'"):
        SyncOban.get_instance("nobody")
    with pytest.raises(ConfigError, match="leave out queues"):
        SyncOban("sqlite://", queues={"default": 1})
