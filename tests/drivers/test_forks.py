"""Forked children: they get connections of their own, and the parent's stay as they are."""

import asyncio
import ctypes
import multiprocessing
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from oban import Job, JobUpdate, Oban, SyncOban, migration
from tests.support.databases import ADMINISTRATOR, Factory, PostgreSQLFactory
from tests.support.internals import hold_writer
from tests.support.options import NO_POLLING

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")


def new() -> Job:
    return Job(worker="w")


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fork(action: Callable[[], Any], by: Callable[[], int] = os.fork) -> int:
    """Run an action in a forked child, and return its exit code."""
    if (pid := by()) != 0:
        return ended(pid)
    code = 1
    try:
        action()
        code = 0
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def sessions(url: URL) -> set[int]:
    """The server's processes for connections to the database."""
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            f" AND pid <> pg_backend_pid() AND application_name <> '{ADMINISTRATOR}'"
        )
        return {pid for (pid,) in rows}


@pytest.fixture(params=["psycopg", "psycopg2"])
def url(request: pytest.FixtureRequest, postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    made = postgresql_factory.through(request.param).create()
    yield made
    postgresql_factory.drop(made)


def use(oban: SyncOban) -> None:
    oban.enqueue(new())
    oban.enqueue(new())
    oban.cancel_many_jobs([1])


@pytest.mark.parametrize("disposes", [False, True])
@pytest.mark.parametrize("kind", ["url", "engine"])
def test_a_child_leaves_the_sessions_of_its_parent_alone(url: URL, kind: str, disposes: bool) -> None:
    oban = SyncOban(url if kind == "url" else create_engine(url))
    use(oban)
    before = sessions(url)

    def child() -> None:
        if disposes:
            oban.engine.dispose(close=False)
        use(oban)
        # A child of the child.
        assert fork(lambda: use(oban)) == 0
        use(oban)
        assert before < sessions(url)
        oban.stop()

    assert fork(child) == 0
    assert fork(lambda: use(oban)) == 0
    use(oban)
    assert before <= sessions(url)
    assert len(oban.list_jobs()) == 12
    oban.engine.dispose()
    oban.stop()


FORKS_AND_EXITS = """
import asyncio, gc, os, sys
from sqlalchemy import text
from oban import Job, Oban, SyncOban
url, PID = sys.argv[1], text("SELECT pg_backend_pid()")
clients = [SyncOban(url.replace("+asyncpg", "+" + driver)) for driver in ("psycopg", "psycopg2")]

async def main():
    oban = Oban(url)
    async def use():
        for _ in range(3):
            await oban.enqueue(Job(worker="w"))
        for each in clients:
            each.enqueue_many(Job(worker="w"), Job(worker="w"))
            each.enqueue(Job(worker="w"))
    await use()
    if (pid := os.fork()) == 0:
        gc.collect()
        return True
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    print("ended", flush=True)
    sys.stdin.readline()
    await use()
    await oban.stop()

is_child = asyncio.run(main())
if not is_child:
    for each in clients:
        each.stop()
    print("parent", flush=True)
"""


@pytest.mark.slow
def test_a_child_that_ends_as_python_does_leaves_them_alone(postgresql_factory: PostgreSQLFactory) -> None:
    url = postgresql_factory.create()
    shown = url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", FORKS_AND_EXITS, shown]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as script:
        assert script.stdin is not None
        assert script.stdout is not None
        assert script.stdout.readline() == "ended\n"
        # One of asyncpg, two of each other driver; each was open when the child ended.
        before = sessions(url)
        assert len(before) >= 3
        script.stdin.write("\n")
        script.stdin.flush()
        assert script.stdout.read() == "parent\n"
    assert script.returncode == 0
    postgresql_factory.drop(url)


def test_a_server_written_in_c_can_fork(url: URL) -> None:
    oban = SyncOban(url)
    use(oban)
    before = sessions(url)
    # Python's functions for forks are not called, as by uWSGI without threads.
    assert fork(lambda: use(oban), by=ctypes.PyDLL(None).fork) == 0
    assert before <= sessions(url)
    use(oban)
    assert before <= sessions(url)
    oban.stop()


def test_children_of_multiprocessing_work_at_the_same_time(url: URL) -> None:
    oban = SyncOban(url)
    use(oban)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=use, args=(oban,)) for _ in range(3)]
    for child in children:
        child.start()
    use(oban)
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0, 0]
    use(oban)
    assert len(oban.list_jobs()) == 12
    oban.stop()


async def use_async(oban: Oban) -> None:
    await oban.enqueue(new())
    await asyncio.gather(oban.enqueue(new()), oban.cancel_many_jobs([1]))


@pytest.mark.parametrize("driver", ["asyncpg", pytest.param("psycopg", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["url", "engine", "node"])
async def test_a_child_can_use_an_oban_on_an_event_loop_of_its_own(
    kind: str, driver: str, postgresql_factory: PostgreSQLFactory
) -> None:
    url = postgresql_factory.through(driver).create()
    engine: AsyncEngine | None = create_async_engine(url) if kind == "engine" else None
    oban = Oban(engine or url, queues={"default": 1} if kind == "node" else None, **NO_POLLING)
    await oban.start()
    await use_async(oban)
    before = sessions(url)

    async def in_child() -> None:
        await use_async(oban)
        await oban.pause_queue("other")
        await oban.stop()

    def child() -> None:
        # As in a child of multiprocessing, the parent's loop does not go on here.
        asyncio.run(in_child())
        sync = SyncOban(url.set(drivername="postgresql+psycopg"))
        use(sync)
        sync.stop()

    for _ in range(2):
        assert fork(child) == 0
    assert before <= sessions(url)
    await use_async(oban)
    assert before <= sessions(url)
    await oban.stop()
    if engine is not None:
        await engine.dispose()
    postgresql_factory.drop(url)


def test_a_lock_that_another_thread_has_is_free_in_the_child(sqlite_factory: Factory) -> None:
    url = sqlite_factory.create()
    oban = SyncOban(url.set(drivername="sqlite"))
    use(oban)
    has_lock, done = threading.Event(), threading.Event()

    def hold() -> None:
        with hold_writer(oban):
            has_lock.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert has_lock.wait(30)
    try:
        assert fork(lambda: use(oban)) == 0
    finally:
        done.set()
        thread.join()
    use(oban)
    assert len(oban.list_jobs()) == 6
    oban.stop()
    sqlite_factory.drop(url)


@pytest.mark.parametrize("kind", ["url", "engine"])
def test_a_child_on_sqlite_loses_nothing_when_its_parent_stops(sqlite_factory: Factory, kind: str) -> None:
    url = sqlite_factory.create().set(drivername="sqlite")
    oban = SyncOban(url if kind == "url" else create_engine(url))
    with oban.engine.connect() as connection:
        # In this mode, the last connection of all processes deletes the log.
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    use(oban)
    (has_written, written), (has_stopped, stopped) = os.pipe(), os.pipe()

    def child() -> None:
        use(oban)
        os.write(written, b".")
        os.read(has_stopped, 1)
        use(oban)

    if (pid := os.fork()) == 0:
        try:
            child()
            os._exit(0)
        finally:
            os._exit(1)
    os.read(has_written, 1)
    oban.engine.dispose()
    oban.stop()
    os.write(stopped, b".")
    assert ended(pid) == 0
    assert len(oban.list_jobs()) == 6
    oban.engine.dispose()
    sqlite_factory.drop(url)


def test_a_fork_on_sqlite_waits_for_a_transaction_of_another_thread(sqlite_factory: Factory) -> None:
    url = sqlite_factory.create().set(drivername="sqlite")
    oban = SyncOban(url)
    use(oban)
    is_locked, go_on = threading.Event(), threading.Event()

    def priority(_: Job) -> JobUpdate:
        is_locked.set()
        go_on.wait(30)
        return {"priority": 1}

    thread = threading.Thread(target=oban.update_job, args=(2, priority))
    thread.start()
    assert is_locked.wait(30)
    timer = threading.Timer(0.1, go_on.set)
    timer.start()
    # Without the wait, the child would believe for ever that the database is locked.
    assert fork(lambda: use(oban)) == 0
    thread.join()
    assert len(oban.list_jobs()) == 4
    oban.stop()
    sqlite_factory.drop(url)


async def test_a_child_can_use_an_oban_on_sqlite(sqlite_factory: Factory) -> None:
    url = sqlite_factory.create()
    oban = Oban(url)
    await use_async(oban)
    assert fork(lambda: asyncio.run(use_async(oban))) == 0
    await use_async(oban)
    assert len(await oban.list_jobs()) == 6
    await oban.stop()
    sqlite_factory.drop(url)


def test_a_child_gets_a_copy_of_a_database_in_memory() -> None:
    oban = SyncOban("sqlite://")
    migration.upgrade(oban.engine)
    use(oban)
    assert fork(lambda: use(oban)) == 0
    assert len(oban.list_jobs()) == 2
    oban.stop()
