"""`oban periodic`: entries are listed in a table, shown, paused, resumed, run, added, changed and deleted."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pydantic import TypeAdapter
from sqlalchemy import URL, create_engine, insert

from oban import Job, Periodic, SyncOban
from oban.cli import main
from oban.cli.documents import DOCUMENTS
from oban.models import Tick
from tests.support.commands import invoke, text
from tests.support.databases import SQLiteFactory
from tests.support.terminal import Terminals


@pytest.fixture
def url(sqlite_url: URL) -> URL:
    return sqlite_url


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


@pytest.mark.parametrize("command", ["pause", "resume", "run", "show", "reset", "delete"])
def test_an_unknown_entry_is_an_error_with_a_similar_name(url: URL, client: SyncOban, command: str) -> None:
    result = run(url, command, "nightl")
    assert result.exit_code == 1
    assert result.output == "Error: no periodic entry is named 'nightl'; did you mean nightly?\n"


def test_a_database_without_tables_is_an_error_with_the_remedy(sqlite_factory: SQLiteFactory) -> None:
    empty = sqlite_factory.create(empty=True)
    result = run(empty, "list")
    assert result.exit_code == 1
    assert "`oban install --database-url" in result.output


ADD = (
    *("periodic", "add", "nightly", "0 3 * * *", "app.Report", "--timezone", "Asia/Tokyo", "--queue", "slow"),
    *("--args", '{"kind": "daily"}', "--tag", "Big", "--tag", "money", "--priority", "2"),
    *("--max-attempts", "5", "--meta", '{"by": "me"}', "--catch-up", "3", "--window", "7200"),
)


def next_night() -> str:
    """The next time at which it is 3:00 in Tokyo, in UTC."""
    now = datetime.now(UTC)
    at = now.replace(hour=18, minute=0, second=0, microsecond=0)
    return f"{at + timedelta(days=1 if at <= now else 0):%Y-%m-%d %H:%M:%S}"


def test_an_entry_is_added_shown_changed_reset_and_deleted(operated: SyncOban, terminals: Terminals) -> None:
    def said(*arguments: str) -> str:
        code, lines = terminals.run(*arguments, columns=120)
        assert code == 0, lines
        return "\n".join(lines)

    assert said(*ADD) == f"nightly was added. Its next time is {next_night()} UTC."
    assert said("periodic", "show", "nightly").splitlines() == [
        "Name:           nightly",
        "State:          active",
        "Source:         added at run time",
        "Expression:     0 3 * * *",
        "Time zone:      Asia/Tokyo",
        "Last (UTC):     -",
        f"Next (UTC):     {next_night()}",
        "Catch up:       3, within 2 hours",
        "Worker:         app.Report",
        "Queue:          slow",
        "Priority:       2",
        "Max attempts:   5",
        'Args:           {"kind": "daily"}',
        "Tags:           big, money",
        'Meta:           {"by": "me"}',
        "Changed:        -",
    ]
    update = ("periodic", "update", "nightly", "--expression", "@hourly", "--queue", "fast")
    assert said(*update).startswith("nightly was changed. Its next time is ")
    shown = said("periodic", "show", "nightly").splitlines()
    assert [shown[1], shown[3], shown[9]] == [
        "State:          active, changed",
        "Expression:     @hourly",
        "Queue:          fast",
    ]
    assert said("periodic", "pause", "nightly") == "nightly is paused."
    assert said("periodic", "reset", "nightly") == "nightly is as it was declared. It is paused."
    assert said("periodic", "delete", "nightly") == "nightly was deleted."
    assert operated.list_periodic() == []


@pytest.mark.parametrize(
    ("columns", "headings"),
    [
        (120, "NAME EXPRESSION TIMEZONE WORKER QUEUE STATE LAST (UTC) NEXT (UTC)"),
        (60, "NAME EXPRESSION STATE"),
    ],
)
def test_a_narrow_terminal_shows_what_fits(
    operated: SyncOban, terminals: Terminals, columns: int, headings: str
) -> None:
    job = Job(worker="app.Report")
    operated.add_periodic(Periodic("the nightly report", "0 3 * * *", job, timezone="Asia/Tokyo"))
    operated.pause_periodic("the nightly report")
    code, lines = terminals.run("periodic", "list", columns=columns)
    assert (code, len(lines)) == (0, 2)
    assert set(lines[0].split()) >= set(headings.split())
    assert lines[1].startswith("the nightly report  0 3 * * *  ")
    assert "paused" in lines[1]
    assert max(map(len, lines)) <= columns


def test_each_command_prints_json(operated: SyncOban) -> None:
    def parsed(*arguments: str) -> Any:
        result = invoke("periodic", *arguments, "--json")
        assert result.exit_code == 0, result.output
        return TypeAdapter(DOCUMENTS[f"periodic {arguments[0]}"]).validate_json(result.stdout)

    added = parsed(*ADD[1:])
    assert (added.name, added.args, added.tags) == ("nightly", {"kind": "daily"}, ["big", "money"])
    assert (added.catch_up, added.window, added.max_attempts) == (3, 7200, 5)
    assert parsed("show", "nightly") == operated.list_periodic()[0] == added
    assert parsed("pause", "nightly").paused
    assert not parsed("resume", "nightly").paused
    assert parsed("update", "nightly", "--catch-up", "skip").override == {"catch_up": "skip"}
    assert parsed("reset", "nightly").override == {}
    job = parsed("run", "nightly")
    assert [job.id] == [found.id for found in operated.list_jobs()]
    assert (job.queue, job.state, job.args) == ("slow", "available", {"kind": "daily"})


#: Arguments, the exit code, and the end of the error.
WRONG: list[tuple[tuple[str, ...], int, str]] = [
    (("update", "nightly"), 2, "Nothing to update: pass one of the options, such as --expression."),
    (("update", "nightly", "--args", "[1]"), 2, 'it must be a JSON object, such as {"id": 7}'),
    (("update", "nightly", "--meta", "{"), 2, "it is not JSON: Expecting property name"),
    (("add", "new", "0 3 * *", "app.Report"), 1, "an expression has five"),
    (("add", "new", "@daily", "app.Report", "--catch-up", "5x"), 1, "catch_up"),
    (("add", "new", "@daily", "app.Report", "--timezone", "Mars/Base"), 1, "Mars/Base"),
    (("add", "new", "@daily", "app.Report", "--priority", "99"), 1, "priority"),
]


@pytest.mark.parametrize("operated", ["sqlite"], indirect=True)
def test_wrong_values_are_refused_with_the_reason(operated: SyncOban) -> None:
    operated.add_periodic(Periodic("nightly", "0 3 * * *", Job(worker="app.Report")))
    for arguments, code, error in WRONG:
        result = invoke("periodic", *arguments)
        assert (result.exit_code, error in result.output) == (code, True), result.output
    (entry,) = operated.list_periodic()
    assert (entry.name, entry.override) == ("nightly", {})
