"""The pytest plugin: clients in a transaction that is rolled back after the test, and a marker for the mode.

pytest imports this module in every run. SQLAlchemy and the rest of Oban are imported when a test uses one of
the fixtures or the marker.
"""

import os
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from oban.testing import advice, async_fixtures
from oban.testing.async_fixtures import async_fixture

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker
    from sqlalchemy.orm import Session, sessionmaker

    from oban import Oban, SyncOban
    from oban.clock import MovableClock
    from oban.testing.databases import PreparedDatabase

MARKER = (
    'oban(mode, *, with_safety=True): run the test in the mode "inline", in which jobs run when they are'
    ' enqueued, or in the mode "manual" (oban.testing.mode)'
)
_MODE = pytest.StashKey[AbstractContextManager[None]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "oban_database_url",
        "the URL of the test database, unless the environment variable OBAN_TEST_DATABASE_URL is set"
        " (default: sqlite://, in memory)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    async_fixtures.register_variants(config)


# -- the marker ----------------------------------------------------------------------------------


# Before the fixtures, so that what they enqueue is run as well.
@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if (marker := item.get_closest_marker("oban")) is not None:
        mode = _mode(marker)
        mode.__enter__()
        item.stash[_MODE] = mode


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    try:
        return (yield)
    finally:
        if (mode := item.stash.get(_MODE, None)) is not None:
            del item.stash[_MODE]
            mode.__exit__(None, None, None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    if call.excinfo is not None:
        advice.add_to(call.excinfo.value, item)
    return (yield)


def _mode(marker: pytest.Mark) -> AbstractContextManager[None]:
    from oban.testing.modes import mode_everywhere

    try:
        # In every context: the test runs in another one than its setup, and so does what its threads enqueue.
        return mode_everywhere(*marker.args, **marker.kwargs)
    except TypeError as error:
        raise pytest.UsageError(
            f'use the marker oban as in @pytest.mark.oban(mode="inline", with_safety=False):'
            f" {str(error).replace('mode_everywhere', 'mode')}"
        ) from None


# -- what a project overrides --------------------------------------------------------------------


@pytest.fixture(scope="session")
def oban_database_url(request: pytest.FixtureRequest) -> str:
    """The URL of the test database. Override it to compute the URL.

    The default comes from the environment variable OBAN_TEST_DATABASE_URL, else from the ini option
    `oban_database_url`, else it is `sqlite://`, a database in memory. Each process of pytest-xdist gets a
    database of its own, such as `shop_test_gw0`, which is created if it is missing.
    """
    url = (
        os.environ.get("OBAN_TEST_DATABASE_URL") or request.config.getini("oban_database_url") or "sqlite://"
    )
    worker = getattr(request.config, "workerinput", None)
    if worker is None:
        return str(url)
    from oban.testing.databases import for_worker

    return for_worker(str(url), worker["workerid"])


@pytest.fixture(scope="session")
def oban_metadata() -> "MetaData | None":
    """Override it to return the `MetaData` of your models, whose tables are created next to Oban's."""
    return None


@pytest.fixture
def oban_options() -> dict[str, Any]:
    """Override it to return options for `Oban` and `SyncOban`, such as `prefix` or `middleware`."""
    return {}


@pytest.fixture
def oban_bind(oban_connection: "AsyncConnection") -> Any:
    """What `oban` works in. Override it to return a session or connection of your own fixtures."""
    return oban_connection


@pytest.fixture
def sync_oban_bind(sync_oban_connection: "Connection") -> Any:
    """What `sync_oban` works in. Override it to return a session or connection of your own fixtures."""
    return sync_oban_connection


# -- what tests use ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _oban_database(oban_database_url: str) -> "Iterator[PreparedDatabase]":
    from oban.testing.databases import open_database

    database = open_database(oban_database_url)
    yield database
    database.dispose()


@async_fixture
async def oban_connection(
    _oban_database: "PreparedDatabase", oban_metadata: "MetaData | None", oban_options: dict[str, Any]
) -> "AsyncIterator[AsyncConnection]":
    """An `AsyncConnection` whose transaction is rolled back after the test."""
    async with _oban_database.connect_async(oban_metadata, oban_options.get("prefix")) as connection:
        yield connection


@pytest.fixture
def sync_oban_connection(
    _oban_database: "PreparedDatabase", oban_metadata: "MetaData | None", oban_options: dict[str, Any]
) -> "Iterator[Connection]":
    """A `Connection` whose transaction is rolled back after the test."""
    with _oban_database.connect(oban_metadata, oban_options.get("prefix")) as connection:
        yield connection


@pytest.fixture
def oban_sessionmaker(oban_connection: "AsyncConnection") -> "async_sessionmaker[AsyncSession]":
    """Makes sessions like `oban_session`, for applications that open their own."""
    from sqlalchemy.ext.asyncio import async_sessionmaker

    return async_sessionmaker(
        oban_connection, join_transaction_mode="create_savepoint", expire_on_commit=False
    )


@pytest.fixture
def sync_oban_sessionmaker(sync_oban_connection: "Connection") -> "sessionmaker[Session]":
    """Makes sessions like `sync_oban_session`, for applications that open their own."""
    from sqlalchemy.orm import sessionmaker

    return sessionmaker(
        sync_oban_connection, join_transaction_mode="create_savepoint", expire_on_commit=False
    )


@async_fixture
async def oban_session(
    oban_sessionmaker: "async_sessionmaker[AsyncSession]",
) -> "AsyncIterator[AsyncSession]":
    """An `AsyncSession` on `oban_connection`, whose commits end savepoints."""
    from oban.testing.rollback import closed

    session = oban_sessionmaker()
    try:
        yield session
    finally:
        await closed(session)


@pytest.fixture
def sync_oban_session(sync_oban_sessionmaker: "sessionmaker[Session]") -> "Iterator[Session]":
    """A `Session` on `sync_oban_connection`, whose commits end savepoints."""
    session = sync_oban_sessionmaker()
    yield session
    # The test can have lost the connection.
    with suppress(Exception):
        session.close()


@pytest.fixture
def oban(oban_bind: Any, oban_options: dict[str, Any]) -> "Iterator[Oban]":
    """An `Oban` whose calls, and those of the workers, are rolled back after the test."""
    from oban import Oban, instances

    advice.check_bind("oban_bind", oban_bind)
    client = Oban(oban_bind, **oban_options)
    yield client
    # The application's own client is the newest of its name again, also if the connection stays open.
    instances.async_clients.forget(client)


@pytest.fixture
def sync_oban(sync_oban_bind: Any, oban_options: dict[str, Any]) -> "Iterator[SyncOban]":
    """A `SyncOban` whose calls, and those of the workers, are rolled back after the test."""
    from oban import SyncOban, instances

    advice.check_bind("sync_oban_bind", sync_oban_bind)
    client = SyncOban(sync_oban_bind, **oban_options)
    yield client
    instances.sync_clients.forget(client)


@pytest.fixture
def oban_clock() -> "Iterator[MovableClock]":
    """A `MovableClock` that is in use during the test and stands still until the test moves it."""
    from oban import clock

    with clock.use(clock.MovableClock()) as moving:
        yield moving
