"""One `Oban` on several event loops: one after the other, or at the same time in several threads."""

import asyncio
import gc
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from sqlalchemy import URL, NullPool, StaticPool
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from oban import Job, Oban
from oban.database.loops import LoopLock
from oban.errors import WrongLoop
from tests.support.databases import DATABASES, PostgreSQLFactory
from tests.support.options import BRIEF
from tests.support.workers import Noop

T = TypeVar("T")
Target = Callable[[URL], URL | AsyncEngine]

TARGETS: dict[str, Target] = {
    "url": lambda url: url,
    "engine": create_async_engine,
    "small": lambda url: create_async_engine(url, pool_size=1, max_overflow=0, pool_pre_ping=True),
    "null": lambda url: create_async_engine(url, poolclass=NullPool),
}


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """A database with the schema, for each driver."""
    factory = request.getfixturevalue(f"{request.param}_factory")
    made = factory.create()
    yield made
    factory.drop(made)


@pytest.fixture(scope="module", autouse=True)
def earlier_objects() -> None:
    """Leave the objects of earlier modules out of the collections of `quiet`, which would take long."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is logged with a traceback, and nothing is freed that should have been closed."""
    yield
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


@pytest.fixture
def quiet_at_all(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a new event loop, which is closed then."""
    return asyncio.run(asyncio.wait_for(coroutine, 20))


async def use(oban: Oban, tasks: int = 10) -> None:
    """Use several connections at once, and wait for them."""
    await asyncio.gather(*(oban.enqueue(Noop.new()) for _ in range(tasks)))
    await asyncio.gather(*(oban.list_jobs(limit=1) for _ in range(tasks)))


async def run_a_job(oban: Oban) -> None:
    job = await oban.enqueue(Noop.new())
    await oban.wait(job, timeout=10)


def end(oban: Oban) -> None:
    run(oban.stop())
    run(oban.engine.dispose())


@contextmanager
def loop_in_thread() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """A loop that runs in another thread; yields a function that runs a coroutine there."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.usefixtures("quiet_at_all")
@pytest.mark.parametrize("target", TARGETS)
def test_a_client_works_on_one_loop_after_the_other(url: URL, target: str) -> None:
    oban = Oban(TARGETS[target](url))
    for _ in range(2):
        run(use(oban, 12))
    run(oban.stop())
    run(use(oban))
    end(oban)


@pytest.mark.usefixtures("quiet_at_all")
def test_a_client_that_nobody_stops_leaves_no_warning(url: URL) -> None:
    run(use(Oban(url)))


# The end of a loop can interrupt a service that connects. Nobody closes its connection then, and the thread
# of aiosqlite has no loop to answer to.
@pytest.mark.filterwarnings("ignore:.*deleted before being closed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("target", ["url", "engine"])
def test_a_node_starts_again_on_another_loop(url: URL, target: str, caplog: pytest.LogCaptureFixture) -> None:
    oban = Oban(TARGETS[target](url), name="loops", queues={"default": 2}, **BRIEF)

    async def started_and_stopped() -> None:
        async with oban:
            await run_a_job(oban)

    async def not_stopped() -> None:
        await oban.start()
        await run_a_job(oban)

    run(started_and_stopped())
    run(started_and_stopped())
    assert caplog.text == ""
    run(not_stopped())
    # Its loop is closed, so that it does not count any more.
    assert oban.check_all_queues() == []
    run(not_stopped())
    run(use(oban))
    end(oban)
    # Not in a later test.
    gc.collect()
    assert caplog.text.count("has ended without a stop") == 2


@pytest.mark.usefixtures("quiet_at_all")
@pytest.mark.parametrize("target", ["url", "null"])
def test_a_client_works_on_several_loops_at_once(url: URL, target: str) -> None:
    oban = Oban(TARGETS[target](url))
    results: list[Any] = []
    running = threading.Barrier(3)

    async def work() -> None:
        await asyncio.to_thread(running.wait)
        await use(oban)
        await use(oban)
        await asyncio.to_thread(running.wait)

    def thread() -> None:
        try:
            results.append(run(work()))
        except Exception as error:
            results.append(error)
            running.abort()

    threads = [threading.Thread(target=thread) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert results == [None, None, None]
    assert len(run(oban.list_jobs())) == 60
    end(oban)


@pytest.mark.usefixtures("quiet_at_all")
def test_an_engine_with_a_pool_is_refused_while_another_loop_uses_it(url: URL) -> None:
    oban = Oban(create_async_engine(url))
    with loop_in_thread() as there:
        there(use(oban))
        with pytest.raises(WrongLoop, match="poolclass=NullPool"):
            run(use(oban))
        there(use(oban))
    run(use(oban))
    end(oban)


def test_one_connection_for_everybody_is_refused_while_another_loop_uses_it(
    postgresql_factory: PostgreSQLFactory,
) -> None:
    url = postgresql_factory.create()
    oban = Oban(create_async_engine(url, poolclass=StaticPool))
    with loop_in_thread() as there:
        there(oban.list_jobs())
        with pytest.raises(WrongLoop, match="one connection"):
            run(oban.list_jobs())
        there(oban.list_jobs())
        there(oban.engine.dispose())
    postgresql_factory.drop(url)


@pytest.mark.usefixtures("quiet_at_all")
def test_a_pool_that_the_application_has_used_on_a_closed_loop_is_cleaned(url: URL) -> None:
    engine = create_async_engine(url)
    oban = Oban(engine)

    async def enqueue_in_a_session() -> None:
        async with AsyncSession(engine) as session:
            await oban.enqueue(Noop.new(), session=session)
            await session.commit()

    async def only_the_application() -> None:
        async with AsyncSession(engine) as session:
            await session.get(Job, 1)

    for work in (only_the_application, enqueue_in_a_session, lambda: use(oban), enqueue_in_a_session):
        run(work())
    end(oban)


def test_tasks_go_on_waiting_for_a_pool_that_oban_uses_for_the_first_time(url: URL) -> None:
    async def connect(engine: AsyncEngine) -> None:
        async with engine.connect():
            pass

    async def main() -> None:
        engine = create_async_engine(url, pool_size=1, max_overflow=0)
        async with AsyncSession(engine) as session, asyncio.TaskGroup() as tasks:
            await session.connection()
            waiting = tasks.create_task(connect(engine))
            await asyncio.sleep(0)
            await Oban(engine).enqueue(Noop.new(), session=session)
            await session.rollback()
            # The wait for a connection ends after 30 seconds.
            await asyncio.wait_for(waiting, 10)
        await engine.dispose()

    run(main())


@pytest.mark.usefixtures("quiet_at_all")
@pytest.mark.parametrize("target", ["url", "engine"])
def test_a_node_is_refused_on_another_loop_than_its_own(url: URL, target: str) -> None:
    oban = Oban(TARGETS[target](url), name="loops", queues={"default": 2}, **BRIEF)
    with loop_in_thread() as there:
        there(oban.start())
        for call in (oban.start, oban.stop, lambda: oban.enqueue(Noop.new())):
            with pytest.raises(WrongLoop, match="on another event loop"):
                run(call())
        there(run_a_job(oban))
        there(oban.stop())
    end(oban)


@pytest.mark.parametrize("url", ["asyncpg"], indirect=True)
def test_a_session_of_another_loop_is_refused(url: URL) -> None:
    engine = create_async_engine(url, poolclass=NullPool)
    oban = Oban(engine)
    session = AsyncSession(engine)
    with loop_in_thread() as there:
        there(session.connection())
        with pytest.raises(WrongLoop, match="belongs to another event loop"):
            run(oban.enqueue(Noop.new(), session=session))
        there(session.invalidate())


def test_the_pool_of_a_url_logs_as_any_other_pool() -> None:
    logger = Oban("sqlite+aiosqlite:///a.db").engine.pool.logger
    assert isinstance(logger, logging.Logger)
    assert logger.name.startswith("sqlalchemy.pool.")


def test_a_lock_excludes_tasks_of_several_loops() -> None:
    lock = LoopLock()
    inside: list[int] = []
    most: list[int] = []

    async def enter(number: int) -> None:
        for _ in range(5):
            async with lock:
                inside.append(number)
                most.append(len(inside))
                await asyncio.sleep(0.001)
                inside.remove(number)

    async def tasks(first: int) -> None:
        await asyncio.gather(*(enter(first + number) for number in range(2)))

    with loop_in_thread() as there, loop_in_thread() as elsewhere:
        waiting = threading.Thread(target=there, args=[tasks(0)])
        waiting.start()
        elsewhere(tasks(2))
        waiting.join()
    assert max(most) == 1
    assert len(most) == 20


def test_a_lock_is_free_again_when_the_loop_of_its_holder_is_closed() -> None:
    lock = LoopLock()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(lock.__aenter__())
    loop.close()

    async def enter() -> bool:
        async with lock:
            return True

    assert run(enter())
