"""Fixtures for all tests: `url` is a fresh database with the schema, on SQLite and on PostgreSQL."""

import gc
import logging
import random
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from zlib import crc32

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from oban import Oban
from oban.registry import registry
from tests.support.compiling import share_compiled_statements
from tests.support.databases import (
    Factory,
    PostgreSQLFactory,
    SQLiteFactory,
    fast_folder,
    postgresql_server,
)
from tests.support.settings import SEED
from tests.support.signals import restore_default_signals

#: The tests of `make test-browser`.
BROWSER = Path(__file__).parent.resolve() / "browser"

# Here, so that it also holds in the processes of pytest-xdist, each of which imports this module.
restore_default_signals()
share_compiled_statements()
logging.getLogger("alembic").setLevel(logging.WARNING)
# On a slow machine any loop is blocked now and then, which says nothing about the test that runs.
logging.getLogger("oban.watchdog").setLevel(logging.CRITICAL)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep modules and collected tests, which live until the end, out of every garbage collection.

    Otherwise looking at them again and again takes a tenth of the time of all tests.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    """Keep what the tests of a file leave, such as compiled statements, out of later garbage collections."""
    yield
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the tests that need a browser, unless they are asked for."""
    if collection_path != BROWSER:
        return None
    asked = (Path(config.invocation_params.dir, each.partition("::")[0]).resolve() for each in config.args)
    return None if any(BROWSER in (each, *each.parents) for each in asked) else True


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--each-driver",
        action="store_true",
        help="do not leave out tests with one of PostgreSQL's drivers, or one of the databases",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--each-driver"):
        drivers = ("asyncpg", "psycopg")
        _spread(items, drivers, _is_about_statements, pytest.mark.second_driver, by="test")
        _spread(items, drivers, _is_alike_with_each_driver, pytest.mark.slow, by="test")
        for server in ("postgresql", *drivers):
            _spread(
                items, ("sqlite", server), _is_alike_on_each_database, pytest.mark.second_database, by="file"
            )
    _sort(config, items)


def _is_about_statements(item: pytest.Item) -> bool:
    # Both drivers get the same SQL; tests/drivers/ has what differs.
    in_folders = item.nodeid.startswith(("tests/suite/", "tests/runner/", "tests/telemetry/", "tests/web/"))
    return in_folders and not any(map(item.get_closest_marker, ("slow", "execution")))


def _is_alike_with_each_driver(item: pytest.Item) -> bool:
    is_marked = any(map(item.get_closest_marker, ("execution", "either_driver")))
    return is_marked and not _is_about_statements(item)


def _is_alike_on_each_database(item: pytest.Item) -> bool:
    # One of the databases is left out already.
    if item.get_closest_marker("slow"):
        return False
    # They call what other folders test on each database.
    folders = (
        "tests/browser/",
        "tests/cli/",
        "tests/docs/",
        "tests/examples/",
        "tests/security/",
        "tests/telemetry/",
        "tests/testing/",
        "tests/web/",
    )
    return item.nodeid.startswith(folders) or item.get_closest_marker("either_database") is not None


def _spread(
    items: list[pytest.Item],
    values: tuple[str, str],
    is_alike: Callable[[pytest.Item], bool],
    mark: pytest.MarkDecorator,
    by: Literal["test", "file"],
) -> None:
    """Mark tests with one of two values of a parameter, if it makes no difference to them.

    Half of these tests stay with the first value, and the other half with the second. Half of the files do if
    the tests of a file share what is made for each value, such as an application that runs.
    """
    alike: dict[str, dict[str, pytest.Item]] = {}
    for item in items:
        if not is_alike(item):
            continue
        name, _, parameters = item.nodeid.partition("[")
        used = [value for value in values if value in parameters]
        if len(used) == 1:
            alike.setdefault(f"{name}[{parameters.replace(used[0], '')}", {})[used[0]] = item
    for key, found in alike.items():
        if len(found) == len(values):
            chosen = key if by == "test" else key.partition("::")[0]
            found[values[crc32(chosen.encode()) % 2]].add_marker(mark)


def _sort(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mix the files of all folders for the processes of pytest-xdist, and put the short files last.

    Some folders have the tests that mostly wait, others those that mostly compute. The cores are used best if
    tests of both kinds run at the same time, and to the end if no process ends with a long file.
    """

    def order(item: pytest.Item) -> tuple[bool, bool, int]:
        file = item.nodeid.partition("::")[0]
        is_mixed = hasattr(config, "workerinput")
        # It adds a relationship to `Job`, which the other tests of a process must not find.
        is_last = file == "tests/docs/test_relationships.py"
        return is_last, is_mixed and file.startswith("tests/unit/"), crc32(file.encode()) if is_mixed else 0

    items.sort(key=order)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """A random generator per test. It yields the same numbers whether the test runs alone or in a suite."""
    print(f"OBAN_SEED={SEED}")
    request.node.user_properties.append(("seed", SEED))
    return random.Random(f"{SEED}/{request.node.name}")


@pytest.fixture(scope="session")
def postgresql_factory() -> Iterator[PostgreSQLFactory]:
    with postgresql_server() as server:
        factory = PostgreSQLFactory(server)
        yield factory
        factory.close()


@pytest.fixture(scope="session")
def sqlite_factory() -> Iterator[SQLiteFactory]:
    with TemporaryDirectory(prefix="oban-sqlite-", dir=fast_folder()) as folder:
        factory = SQLiteFactory(Path(folder))
        yield factory
        factory.close()


@pytest.fixture(scope="session")
def asyncpg_factory(postgresql_factory: PostgreSQLFactory) -> PostgreSQLFactory:
    return postgresql_factory


@pytest.fixture(scope="session")
def psycopg_factory(postgresql_factory: PostgreSQLFactory) -> PostgreSQLFactory:
    return postgresql_factory.through("psycopg")


@pytest.fixture(params=["sqlite", "postgresql"])
def factory(request: pytest.FixtureRequest) -> Factory:
    """Makes databases; a test that uses it runs once on each database."""
    made: Factory = request.getfixturevalue(f"{request.param}_factory")
    return made


@pytest.fixture
def url(factory: Factory) -> Iterator[URL]:
    """A fresh database with the schema in it, as an async URL."""
    made = factory.create()
    yield made
    factory.drop(made)


@pytest.fixture
def sqlite_url(sqlite_factory: SQLiteFactory) -> Iterator[URL]:
    """A fresh database with the schema on SQLite, for tests that do not depend on the database."""
    made = sqlite_factory.create()
    yield made
    sqlite_factory.drop(made)


@pytest.fixture
def empty_url(factory: Factory) -> Iterator[URL]:
    """A fresh database without any table."""
    made = factory.create(empty=True)
    yield made
    factory.drop(made)


@pytest.fixture
async def oban(url: URL) -> AsyncIterator[Oban]:
    """A client on a fresh database; it runs no jobs."""
    async with Oban(url) as client:
        yield client


@pytest.fixture
def engine(oban: Oban) -> AsyncEngine:
    """The engine of `oban`."""
    return oban.engine


@pytest.fixture
def own_registry() -> Iterator[None]:
    """Forget the workers of a test, for which the nodes of other tests have no resources."""
    before = dict(registry)
    yield
    registry.clear()
    registry.update(before)
