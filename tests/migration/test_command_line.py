"""The `alembic` command in a checkout of the library."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, text

from tests.support.alembic_commands import alembic, here, succeeds
from tests.support.databases import Factory
from tests.support.schema import TABLES, VERSION_TABLE, described, is_empty, render, sync_engine, tables

DRIVERS = ["sqlite", "sqlite+aiosqlite", "postgresql", "postgresql+asyncpg", "postgresql+psycopg"]


@pytest.fixture(params=DRIVERS)
def any_url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """An empty database, with each kind of URL."""
    database = request.param.partition("+")[0]
    factory: Factory = request.getfixturevalue(f"{database}_factory")
    made = factory.create(empty=True)
    yield made.set(drivername=request.param)
    factory.drop(made)


def test_upgrade_creates_the_tables_of_the_models_with_every_driver(any_url: URL) -> None:
    here("upgrade", "head", url=any_url)
    assert tables(any_url) == TABLES | {VERSION_TABLE}
    assert "No new upgrade operations detected" in here("check", url=any_url)


def test_downgrade_leaves_nothing_and_another_upgrade_creates_the_same(empty_url: URL) -> None:
    here("upgrade", "head", url=empty_url)
    before = described(empty_url)
    with sync_engine(empty_url).begin() as connection:
        connection.execute(text("INSERT INTO oban_jobs (worker) VALUES ('any')"))
    here("downgrade", "base", url=empty_url)
    assert is_empty(empty_url)
    here("upgrade", "head", url=empty_url)
    assert described(empty_url) == before
    # A second upgrade changes nothing.
    here("upgrade", "head", url=empty_url)
    assert described(empty_url) == before


def test_check_reports_a_difference_and_ignores_other_tables(
    empty_url: URL, capsys: pytest.CaptureFixture[str]
) -> None:
    here("upgrade", "head", url=empty_url)
    engine = sync_engine(empty_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE users (id integer PRIMARY KEY)"))
        connection.execute(text("CREATE TABLE alembic_version (version_num varchar(32))"))
    here("check", url=empty_url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE oban_jobs ADD COLUMN extra text"))
    with pytest.raises(SystemExit):
        here("check", url=empty_url)
    assert "extra" in "".join(capsys.readouterr())
    here("downgrade", "base", url=empty_url)
    assert tables(empty_url) == {"users", "alembic_version"}


def made(path: Path) -> bool:
    """Whether a SQLite file has the schema."""
    return path.exists() and "oban_jobs" in tables(URL.create("sqlite", database=str(path)))


def test_the_url_comes_from_the_option_then_the_environment_then_the_file(tmp_path: Path) -> None:
    option, variable, ini = tmp_path / "option.db", tmp_path / "variable.db", tmp_path / "oban.db"
    succeeds(
        *("upgrade", "head"),
        url=URL.create("sqlite", database=str(option)),
        environment=f"sqlite:///{variable}",
        cwd=tmp_path,
    )
    assert (made(option), made(variable), made(ini)) == (True, False, False)
    succeeds("upgrade", "head", environment=f"sqlite:///{variable}", cwd=tmp_path)
    assert (made(variable), made(ini)) == (True, False)
    succeeds("upgrade", "head", cwd=tmp_path)
    assert made(ini)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql://someone:secret@localhost/db", "mysql is not supported"),
        ("postgresql+psycopg2cffi://someone:secret@localhost/db", "psycopg2cffi is not supported"),
        ("postgresql//someone:secret@localhost", "cannot be read"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str, problem: str) -> None:
    done = alembic("upgrade", "head", environment=url)
    assert done.returncode != 0
    assert problem in done.stderr
    assert "secret" not in done.stderr + done.stdout


def test_a_percent_sign_in_the_url_is_not_interpreted(tmp_path: Path) -> None:
    path = tmp_path / "100%25 done.db"
    succeeds("upgrade", "head", environment=render(URL.create("sqlite", database=str(path))))
    assert made(path)


def test_current_and_history_know_the_revision(empty_url: URL) -> None:
    assert here("current", url=empty_url).strip() == ""
    # These commands must not create the version table.
    assert is_empty(empty_url)
    here("upgrade", "head", url=empty_url)
    assert "(head)" in here("current", url=empty_url)
