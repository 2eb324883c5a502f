"""Every snippet of `docs/guides/periodic.md` runs unchanged and has the documented effect."""

import re
import shlex
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import URL, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, Oban, Periodic, SyncOban, Worker, filters, job, worker
from oban.models import PeriodicEntry
from oban.repository import cluster, periodic
from oban.worker_entries import declared_entries
from tests.docs.stage import Page, Snippet, Stage
from tests.support.commands import invoke
from tests.support.databases import SQLiteFactory
from tests.support.internals import database_of
from tests.support.processes import ROOT
from tests.support.rows import lasting_url

PAGE = Page("guides/periodic.md")

pytestmark = pytest.mark.usefixtures("own_registry")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


def names(**further: Any) -> dict[str, Any]:
    """What the snippets import."""
    return {
        "__name__": "app",
        "Oban": Oban,
        "Periodic": Periodic,
        "Worker": Worker,
        "worker": worker,
        "job": job,
        "timedelta": timedelta,
        **further,
    }


def report() -> type[Worker]:
    class Report(Worker, name="app.Report"):
        async def process(self, job: Job) -> None: ...

    return Report


@pytest.fixture
async def stage(oban: Oban) -> Stage:
    """A client of an instance whose code declares the entry `nightly`."""
    async with oban.engine.begin() as connection:
        await connection.execute(delete(PeriodicEntry))
    now = await database_of(oban).read(cluster.database_time)
    nightly = Periodic("nightly", "0 3 * * *", Job(worker="app.Nightly"))
    await database_of(oban).write(periodic.declare, "Oban", [nightly], now)
    stage = Stage(oban)
    stage.names |= names(Report=report(), engine=oban.engine, AsyncSession=AsyncSession)
    return stage


def declares(snippet: Snippet) -> dict[str, Any]:
    """The only entry that the workers of a snippet declare."""
    exec(snippet.compiled(), names())
    (entry,) = declared_entries("Oban", [])
    return {"name": entry.name, **entry.declared}


#: A part of each snippet that defines a worker, and what it declares.
DEFINED: dict[str, dict[str, Any]] = {
    "def check_prices": {"name": "app.check_prices", "expression": "*/5 * * * *", "timezone": "UTC"},
    "class CheckStock": {"name": "app.CheckStock", "expression": "*/5 * * * *", "queue": "checks"},
    "def refresh_cache": {
        "unique": {
            "period": None,
            "fields": ["worker", "queue", "args"],
            "keys": [],
            "states": ["available", "scheduled", "suspended", "executing", "retryable"],
            "timestamp": "inserted_at",
        },
    },
    "class SalesReport": {
        "expression": "0 3 * * *",
        "timezone": "Europe/Berlin",
        "args": {"kind": "sales"},
        "catch_up": "latest",
        "window": 3600.0,
    },
    "class HourlyTotals": {"expression": "@hourly", "catch_up": "all", "window": 86400.0},
}


@PAGE.shows(*DEFINED)
def test_a_worker_declares_its_entry(snippet: Snippet) -> None:
    (expected,) = (values for part, values in DEFINED.items() if part in snippet.code)
    assert expected.items() <= declares(snippet).items()


@PAGE.shows("periodic=[")
async def test_an_instance_declares_entries(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    oban = stage.names["oban"]
    entries = declared_entries("Oban", oban.options.periodic)
    assert [(entry.name, entry.timezone) for entry in entries] == [
        ("report: Europe", "Europe/Berlin"),
        ("report: US", "America/New_York"),
    ]


@PAGE.shows("list_periodic()")
async def test_entries_are_listed(stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]) -> None:
    await stage.run(snippet)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("nightly 0 3 * * * UTC None 20")
    assert line.endswith(" 03:00:00+00:00")


@PAGE.shows("run_periodic(")
async def test_a_job_is_inserted_now(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    stored = await stage.job(stage.names["job"].id)
    assert (stored.worker, stored.state, stored.meta["cron_name"]) == ("app.Nightly", "available", "nightly")


@PAGE.shows('filters.meta("cron_name")')
async def test_the_rows_of_an_entry_tell_whether_it_ran_twice(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.names |= {"Job": Job, "filters": filters, "select": select}
    tick = {"cron_name": "nightly", "cron_tick": "2026-03-01T03:00:00Z"}
    at_once = await stage.oban.run_periodic("nightly")
    at_three = await stage.oban.enqueue(Job(worker="app.Nightly", meta=tick))
    await stage.run(snippet)
    lines = [line.split(" 0 ")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines[-2:] == [f"run by hand {at_once.id}", f"2026-03-01T03:00:00Z {at_three.id}"]


@PAGE.shows("resume_periodic(")
async def test_an_entry_is_paused_and_resumed(stage: Stage, snippet: Snippet) -> None:
    for step, paused in zip(snippet.code.splitlines(), (True, False), strict=True):
        await stage.run(Snippet(snippet.page, snippet.line, step))
        assert [entry.paused for entry in await stage.oban.list_periodic()] == [paused]


@PAGE.shows("reset_periodic(")
async def test_an_entry_is_changed_and_reset(stage: Stage, snippet: Snippet) -> None:
    expected = [("30 4 * * *", "reports", True), ("0 3 * * *", "default", False)]
    for step, values in zip(snippet.code.splitlines(), expected, strict=True):
        await stage.run(Snippet(snippet.page, snippet.line, step))
        (entry,) = await stage.oban.list_periodic()
        assert (entry.expression, entry.queue, entry.overridden) == values


@PAGE.shows("delete_periodic(")
async def test_an_entry_is_added_and_deleted(stage: Stage, snippet: Snippet) -> None:
    *steps, delete_it = snippet.code.splitlines()
    await stage.run(Snippet(snippet.page, snippet.line, "\n".join(steps)))
    added = (await stage.oban.list_periodic())[1]
    assert (added.name, added.source, added.args) == ("report: customer 7", "runtime", {"customer": 7})
    await stage.run(Snippet(snippet.page, snippet.line, delete_it))
    assert [entry.name for entry in await stage.oban.list_periodic()] == ["nightly"]


@PAGE.shows("session=session")
async def test_an_entry_is_added_in_a_transaction(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    assert [entry.name for entry in await stage.oban.list_periodic()] == ["nightly", "report: customer 8"]


def test_the_commands_of_the_page_work(
    sqlite_factory: SQLiteFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sqlite_factory.create()
    monkeypatch.setenv("OBAN_DATABASE_URL", made.render_as_string(hide_password=False))
    with SyncOban(made.set(drivername="sqlite")) as client:
        client.add_periodic(Periodic("nightly", "0 3 * * *", Job(worker="app.Report")))
    found = re.findall("`oban (periodic [^`]*)`", (ROOT / "docs/guides/periodic.md").read_text())
    commands = [shlex.split(command) for command in found]
    verbs = {"list", "show", "run", "pause", "resume", "update", "reset", "add", "delete"}
    assert {command[1] for command in commands} == verbs
    for command in commands:
        result = invoke(*command)
        assert result.exit_code == 0, result.output
    sqlite_factory.drop(made)


def test_every_snippet_is_run_by_a_test() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets
