"""`oban periodic`: entries are listed in a table, paused, resumed and run."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import URL, create_engine, insert

from oban import Job, Periodic, SyncOban
from oban.cli import main
from oban.models import Tick
from tests.cli.support import text
from tests.support.databases import SQLiteFactory


@pytest.fixture
def url(sqlite_factory: SQLiteFactory) -> Iterator[URL]:
    made = sqlite_factory.create()
    yield made
    sqlite_factory.drop(made)


@pytest.fixture
def client(url: URL) -> Iterator[SyncOban]:
    """A client of an instance with two entries."""
    with SyncOban(url.set(drivername="sqlite"), name="shop") as oban:
        oban.add_periodic(Periodic("nightly", "0 3 * * *", Job(worker="app.Report"), timezone="Asia/Tokyo"))
        oban.add_periodic(Periodic("every minute", "* * * * *", Job(worker="app.Poll", queue="fast")))
        yield oban


def run(url: URL, *arguments: str) -> Result:
    command = ["periodic", *arguments, "--database-url", text(url), "--name", "shop"]
    return CliRunner().invoke(main, command)


def test_entries_are_listed_in_aligned_columns(url: URL, client: SyncOban) -> None:
    tick = datetime(2026, 3, 1, 18, tzinfo=UTC)
    engine = create_engine(url.set(drivername="sqlite"))
    row = {"name": "shop", "entry": "nightly", "tick": tick, "job_id": 3, "inserted_at": tick}
    with engine.begin() as connection:
        connection.execute(insert(Tick), [row])
    engine.dispose()
    client.pause_periodic("every minute")
    client.update_periodic("nightly", queue="slow")
    result = run(url, "list")
    assert result.exit_code == 0, result.output
    now = datetime.now(UTC)
    next_at = now.replace(hour=18, minute=0, second=0, microsecond=0)
    next_at += timedelta(days=1 if next_at <= now else 0)
    assert result.output.splitlines() == [
        "NAME          EXPRESSION  TIMEZONE    WORKER      QUEUE  STATE            LAST (UTC)         "
        "  NEXT (UTC)",
        "every minute  * * * * *   UTC         app.Poll    fast   paused           -                    -",
        "nightly       0 3 * * *   Asia/Tokyo  app.Report  slow   active, changed  2026-03-01 18:00:00"
        f"  {next_at:%Y-%m-%d} 18:00:00",
    ]


def test_an_instance_without_entries_says_so(url: URL) -> None:
    result = run(url, "list")
    assert (result.exit_code, result.output) == (
        0,
        "The instance shop has no periodic entries. A node stores those of its code when it starts.\n",
    )


def test_entries_are_paused_resumed_and_run(url: URL, client: SyncOban) -> None:
    assert run(url, "pause", "nightly").output == "nightly is paused.\n"
    assert [info.paused for info in client.list_periodic()] == [False, True]
    assert run(url, "resume", "nightly").output == "nightly is active.\n"
    assert [info.paused for info in client.list_periodic()] == [False, False]
    result = run(url, "run", "nightly")
    (job,) = client.list_jobs()
    assert (job.worker, job.meta["cron_name"]) == ("app.Report", "nightly")
    assert result.output == f"Job {job.id} of nightly is in the queue default.\n"


def test_a_run_that_a_unique_job_keeps_out_is_an_error(url: URL, client: SyncOban) -> None:
    client.add_periodic(Periodic("sync", "@hourly", Job(worker="app.Sync", unique=True)))
    assert run(url, "run", "sync").exit_code == 0
    (job,) = client.list_jobs()
    result = run(url, "run", "sync")
    assert result.exit_code == 1
    assert result.output == (
        f"Error: no job of sync was inserted: it is unique, and job {job.id}, which is available, is in the"
        " way\n"
    )
    assert len(client.list_jobs()) == 1


@pytest.mark.parametrize("command", ["pause", "resume", "run"])
def test_an_unknown_entry_is_an_error_with_a_similar_name(url: URL, client: SyncOban, command: str) -> None:
    result = run(url, command, "nightl")
    assert result.exit_code == 1
    assert result.output == "Error: no periodic entry is named 'nightl'; did you mean nightly?\n"


def test_a_database_without_tables_is_an_error_with_the_remedy(sqlite_factory: SQLiteFactory) -> None:
    empty = sqlite_factory.create(empty=True)
    result = run(empty, "list")
    assert result.exit_code == 1
    assert "`oban install --database-url" in result.output
