"""The pytest plugin in a project of its own, `project/`, whose tests run in processes of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import PostgreSQLFactory
from tests.testing.subprocesses import run, run_pytest

#: How many tests the project has, without those in failing.py.
TESTS = 30


@pytest.fixture
def server(postgresql_factory: PostgreSQLFactory) -> Iterator[str]:
    """The URL of an empty database on PostgreSQL, without a driver."""
    url = postgresql_factory.create(empty=True).set(drivername="postgresql")
    yield url.render_as_string(hide_password=False)
    postgresql_factory.drop(url)
    for worker in ("gw0", "gw1"):
        postgresql_factory.drop(url.set(database=f"{url.database}_{worker}"))


@pytest.mark.slow
def test_its_tests_pass_with_pytest_asyncio_and_anyio_and_unittest_side_by_side() -> None:
    code, output = run_pytest()
    assert f"{TESTS} passed" in output
    assert code == 0, output


@pytest.mark.slow
def test_its_tests_pass_on_postgresql_with_each_driver(server: str) -> None:
    # The second run finds the tables of the first.
    for driver in ("", "+asyncpg", "+psycopg"):
        code, output = run_pytest(database=server.replace("postgresql", f"postgresql{driver}", 1))
        assert f"{TESTS} passed" in output
        assert code == 0, output


@pytest.mark.slow
def test_its_tests_pass_with_xdist_on_databases_of_their_own(server: str) -> None:
    code, output = run_pytest("--numprocesses", "2", database=server)
    assert f"{TESTS} passed" in output
    assert code == 0, output


@pytest.mark.slow
def test_its_tests_pass_with_xdist_on_files_of_their_own(tmp_path: Path) -> None:
    code, output = run_pytest(
        *("--numprocesses", "2", "--dist", "loadfile"), database=f"sqlite:///{tmp_path}/test.db"
    )
    assert f"{TESTS} passed" in output
    assert code == 0, output
    assert {"test_gw0.db", "test_gw1.db"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
def test_its_tests_pass_in_the_auto_mode_of_pytest_asyncio() -> None:
    code, output = run_pytest("--asyncio-mode", "auto", "--ignore", "tests/test_anyio.py")
    assert " passed" in output
    assert code == 0, output


@pytest.mark.slow
def test_its_tests_pass_with_anyio_alone() -> None:
    tests = ("tests/test_anyio.py", "tests/test_sync.py")
    code, output = run_pytest("--config-file", "anyio.ini", "-p", "no:asyncio", *tests)
    assert " passed" in output
    assert code == 0, output


@pytest.mark.slow
def test_its_tests_for_unittest_pass_without_pytest() -> None:
    code, output = run("-m", "unittest", "discover", "-s", "tests", "-p", "test_unittest.py")
    assert "Ran 5 tests" in output
    assert code == 0, output


@pytest.mark.slow
def test_failures_of_tests_show() -> None:
    code, output = run_pytest("tests/failing.py", "--tb", "short")
    assert code == 1
    assert "3 failed, 2 errors" in output
    assert "assert 1 == 2" in output
    assert "ValueError: there is no such order" in output
    assert "no such table: nowhere" in output
    assert "the mode must be 'inline' or 'manual', not 'inlin'" in output
    assert 'use the marker oban as in @pytest.mark.oban(mode="inline", with_safety=False)' in output


def test_a_project_that_does_not_use_the_plugin_imports_nothing_for_it(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text(
        "import sys\n\n\ndef test_nothing():\n"
        "    assert {'sqlalchemy', 'alembic', 'orjson'}.isdisjoint(sys.modules)\n"
        "    assert {name for name in sys.modules if name.split('.')[0] == 'oban'} == {\n"
        "        'oban', 'oban.testing', 'oban.testing.advice', 'oban.testing.async_fixtures',\n"
        "        'oban.testing.plugin',\n    }\n"
    )
    code, output = run_pytest(
        *("-W", "error", "--strict-markers", "--override-ini", "asyncio_default_fixture_loop_scope=function"),
        folder=tmp_path,
    )
    assert "1 passed" in output
    assert code == 0, output
