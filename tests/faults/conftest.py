"""Fixtures of the tests with faults. The seed of their random numbers is printed at the end."""

from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from tests.faults.cluster import end_forking
from tests.support.database_server import Server
from tests.support.databases import PostgreSQLFactory
from tests.support.settings import SEED


@pytest.fixture(scope="package", autouse=True)
def nothing_left() -> Iterator[None]:
    """Leave no process behind, as tests of other packages count processes."""
    yield
    end_forking()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the seed also if every test has passed."""
    terminalreporter.write_line(f"tests/faults: OBAN_SEED={SEED}")


@pytest.fixture(scope="session")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A PostgreSQL server that tests can crash and stop. It runs again after each of them."""
    with Server() as server:
        yield server


@pytest.fixture
def server(own_server: Server) -> Iterator[Server]:
    """The server that tests can crash and stop, running."""
    yield own_server
    own_server.start()


@pytest.fixture
def server_url(server: Server) -> Iterator[URL]:
    """A fresh database with the schema on that server, over TCP."""
    url = server.create()
    yield url
    server.start()
    server.drop(url)


@pytest.fixture
def postgresql_url(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """A fresh database on PostgreSQL only."""
    made = postgresql_factory.create()
    yield made
    postgresql_factory.drop(made)
