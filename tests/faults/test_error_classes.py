"""Errors of a database that is away and errors of a value that it refuses are distinguished.

They are distinguished by class and SQLSTATE. Each error is provoked on a real server.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import URL, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from oban import dialects
from tests.faults import recording
from tests.faults.proxy import Proxy
from tests.support.database_server import Server
from tests.support.databases import PostgreSQLFactory

POSTGRESQL = dialects.by_name("postgresql")
INSERT = "INSERT INTO oban_leaders VALUES ('a', 'b', now(), now())"
Step = str | Callable[[AsyncConnection], Awaitable[Any]]
Provoke = Callable[[URL], Awaitable[None]]


@pytest.fixture(scope="module")
def shared(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    made = postgresql_factory.create()
    with recording.connected(made) as connection:
        connection.execute(text("CREATE TABLE numbers (id bigint PRIMARY KEY)"))
        connection.execute(text("INSERT INTO numbers VALUES (1)"))
        connection.execute(text("CREATE ROLE crowded LOGIN CONNECTION LIMIT 0"))
    yield made
    with recording.connected(made) as connection:
        connection.execute(text("DROP ROLE crowded"))
    postgresql_factory.drop(made)


async def run(url: URL, *steps: Step, autocommit: bool = False, **parameters: Any) -> None:
    """Run statements and functions in a transaction, and commit it."""
    level = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
    engine = create_async_engine(url, poolclass=NullPool, **level)
    async with engine.connect() as connection:
        for step in steps:
            if isinstance(step, str):
                await connection.execute(text(step), parameters)
            else:
                await step(connection)
        await connection.commit()


def doing(*steps: Step, autocommit: bool = False, **parameters: Any) -> Provoke:
    return lambda url: run(url, *steps, autocommit=autocommit, **parameters)


async def terminate(connection: AsyncConnection) -> None:
    """End the session like an administrator, and wait for its end."""
    process = await connection.scalar(text("SELECT pg_backend_pid()"))
    await run(connection.engine.url, f"SELECT pg_terminate_backend({process}, 5000)")


async def terminate_soon(connection: AsyncConnection) -> None:
    process = await connection.scalar(text("SELECT pg_backend_pid()"))
    statement = f"SELECT pg_terminate_backend({process}) FROM pg_sleep(0.1)"
    connection.info["terminating"] = asyncio.create_task(run(connection.engine.url, statement))


async def close(connection: AsyncConnection) -> None:
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    await driver.close()


async def occupy(connection: AsyncConnection) -> None:
    """Use the driver's connection for two statements at once."""
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    busy = asyncio.create_task(driver.execute("SELECT pg_sleep(0.2)"))
    await asyncio.sleep(0.05)
    try:
        await connection.execute(text("SELECT 1"))
    finally:
        await asyncio.wait({busy})


async def wait(_: AsyncConnection) -> None:
    await asyncio.sleep(0.15)


def elsewhere(**where: Any) -> Provoke:
    return lambda url: run(url.set(**where), "SELECT 1")


#: Connections are lost while idle, in a statement, and at the commit, in every way.
GONE: dict[str, Provoke] = {
    "terminated while idle": doing("SELECT 1", terminate, "SELECT 1"),
    "terminated before the commit": doing("SELECT 1", terminate),
    "terminated in a statement": doing(terminate_soon, "SELECT pg_sleep(5)"),
    "terminated in autocommit": doing(terminate_soon, "SELECT pg_sleep(5)", autocommit=True),
    "closed here, then a statement": doing("SELECT 1", close, "SELECT 1"),
    "closed here, then the commit": doing("SELECT 1", close),
    "idle in a transaction, then a statement": doing(
        "SET idle_in_transaction_session_timeout = 20", wait, "SELECT 1"
    ),
    "idle in a transaction, then the commit": doing("SET idle_in_transaction_session_timeout = 20", wait),
    "idle for too long": doing("SET idle_session_timeout = 20", wait, "SELECT 1", autocommit=True),
    "canceled by statement_timeout": doing("SET statement_timeout = 20", "SELECT pg_sleep(5)"),
    "canceled by hand": doing("SELECT pg_cancel_backend(pg_backend_pid())"),
    "read-only": doing("SET TRANSACTION READ ONLY", "INSERT INTO numbers VALUES (2)"),
    "refused": elsewhere(host="127.0.0.1", port=1, query={}),
    "no such host": elsewhere(host="nowhere.invalid", port=5432, query={}),
    "no such database": elsewhere(database="nowhere"),
    "no such role": elsewhere(username="nobody"),
    "too many connections": elsewhere(username="crowded"),
}


async def raised_by(provoke: Provoke, url: URL) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the test decides which error it is
        await provoke(url)
    return caught.value


def verdict(error: BaseException) -> set[str]:
    """The classification of an error by the dialect."""
    checks = {"gone": POSTGRESQL.is_connection_error, "bad value": POSTGRESQL.is_bad_value}
    found = {name for name, check in checks.items() if check(error)}
    if isinstance(error, DBAPIError) and POSTGRESQL.is_transient(error):
        found.add("transient")
    if not found and POSTGRESQL.is_retryable(error):
        found.add("passing")
    return found


@pytest.fixture(params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    return f"postgresql+{request.param}"


@pytest.mark.parametrize("how", GONE)
async def test_a_database_that_cannot_be_used_now(shared: URL, driver: str, how: str) -> None:
    error = await raised_by(GONE[how], shared.set(drivername=driver))
    assert verdict(error) == {"gone"}, repr(error)


async def test_a_connection_of_asyncpg_that_is_used_twice_at_once(shared: URL) -> None:
    error = await raised_by(doing(occupy), shared)
    assert "another operation is in progress" in str(error)
    assert verdict(error) == {"gone"}


CUTS: dict[str, Callable[[Proxy], Any]] = {
    "the request of a commit": lambda proxy: proxy.cut_commits("request", 1),
    "the answer to a commit": lambda proxy: proxy.cut_commits("answer", 1),
    "a statement": lambda proxy: asyncio.get_running_loop().call_later(0.2, proxy.cut),
    "a new connection": lambda proxy: setattr(proxy, "refusing", True),
}


@pytest.mark.parametrize("what", CUTS)
async def test_the_network_cuts(server: Server, server_url: URL, driver: str, what: str) -> None:
    async with Proxy(server.url) as proxy:
        CUTS[what](proxy)
        steps = ["SELECT pg_sleep(5)"] if what == "a statement" else ["CREATE TABLE made (id int)"]
        url = proxy.through(server_url).set(drivername=driver)
        error = await raised_by(doing(INSERT, *steps), url)
    assert verdict(error) == {"gone"}, repr(error)


@asynccontextmanager
async def as_standby(server: Server, hot: bool) -> AsyncIterator[None]:
    """The server as a standby, which accepts connections for reading only if it is `hot`."""
    folder = server.wheel.pgdata
    settings = folder / "postgresql.auto.conf"
    before = settings.read_text()
    await asyncio.to_thread(server.stop)
    settings.write_text(f"{before}\nhot_standby = {'on' if hot else 'off'}\n")
    (folder / "standby.signal").touch()
    try:
        await asyncio.to_thread(server.start)
        yield
    finally:
        await asyncio.to_thread(server.stop)
        settings.write_text(before)
        (folder / "standby.signal").unlink()
        await asyncio.to_thread(server.start)


async def test_a_server_that_starts_stops_or_follows(server: Server, server_url: URL, driver: str) -> None:
    url = server_url.set(drivername=driver)

    async def stop(_: AsyncConnection) -> None:
        await asyncio.to_thread(server.stop, "fast")

    found = {"shut down": await raised_by(doing("SELECT 1", stop, "SELECT 1"), url)}
    found["stopped"] = await raised_by(doing("SELECT 1"), url)
    server.start()
    found["crashed"] = await raised_by(
        doing("SELECT 1", lambda _: asyncio.to_thread(server.crash_restart), "SELECT 1"), url
    )
    async with as_standby(server, hot=False):
        found["starting"] = await raised_by(doing("SELECT 1"), url)
    async with as_standby(server, hot=True):
        found["following"] = await raised_by(doing(INSERT), url)
    await run(url, INSERT)
    assert {name: verdict(error) for name, error in found.items()} == {name: {"gone"} for name in found}


VALUES = {
    "NUL": ("text", "a\0b"),
    "a lone surrogate": ("text", "\ud800"),
    "an integer beyond 64 bits": ("bigint", 2**70),
    "text for a number": ("bigint", "x"),
    "a number beyond the column": ("numeric(2)", 1000),
    "no JSON": ("jsonb", "{"),
    "NUL in JSON": ("jsonb", '"\\u0000"'),
    "a date that is none": ("date", "0000-99-99"),
}


@pytest.mark.parametrize("value", VALUES)
async def test_a_value_that_is_refused(shared: URL, driver: str, value: str) -> None:
    type_, bad_value = VALUES[value]
    # Sent as a string and cast by the server, as the driver would refuse the value for the type.
    sent = "CAST(:value AS text)" if type_ in {"jsonb", "date"} else ":value"
    select = f"SELECT CAST({sent} AS {type_})"
    error = await raised_by(doing(select, value=bad_value), shared.set(drivername=driver))
    assert verdict(error) == {"bad value"}, repr(error)


async def test_a_lock_that_another_transaction_holds(shared: URL, driver: str) -> None:
    engine = create_engine(shared.set(drivername="postgresql+psycopg"), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("UPDATE numbers SET id = id"))
        waiting = doing("SET lock_timeout = 20", "UPDATE numbers SET id = id")
        error = await raised_by(waiting, shared.set(drivername=driver))
    assert verdict(error) == {"passing"}, repr(error)


#: SQLSTATEs by classification, whatever the message. The server raises each of them.
CODES = {
    "57P01 57P02 57P03 57P04 57P05 57014 08006 08P01 53100 53200 53300 58030 25006": {"gone"},
    "40001 40P01": {"transient"},
    "55P03 26000": {"passing"},
    "22003 22P05 54000": {"bad value"},
    # The cause can be one row or the whole table.
    "23505 23514 42501 42P01 P0001 XX000 0A000": set(),
}


@pytest.mark.parametrize("codes", CODES)
async def test_codes_of_the_server(shared: URL, driver: str, codes: str) -> None:
    for code in re.findall(r"\w+", codes):
        raising = f"DO $$ BEGIN RAISE EXCEPTION 'whatever' USING ERRCODE = '{code}'; END $$"
        error = await raised_by(doing(raising), shared.set(drivername=driver))
        assert verdict(error) == CODES[codes], repr(error)
