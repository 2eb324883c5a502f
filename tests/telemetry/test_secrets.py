"""Redacted values and passwords are nowhere but in the columns args and meta of jobs and periodic entries."""

import asyncio
import json
import logging
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry
from sqlalchemy import URL, select
from sqlalchemy.ext.asyncio import create_async_engine

from oban import Job, JobState, Oban, Periodic, SyncOban
from oban.cli import main
from oban.cli.logs import json_formatter
from oban.cli.top.details import describe
from oban.errors import ObanError
from oban.models import Base
from oban.prometheus import metrics_app
from oban.telemetry import Event, JobEnded, JobsEnqueued, JobStarted
from tests.support import tracing
from tests.support.options import BRIEF
from tests.support.scraping import scrape
from tests.support.waiting import eventually
from tests.telemetry.leaking_workers import (
    HOWS,
    META,
    NUMBER,
    InProcess,
    InThread,
    Leaks,
    Queries,
    TimesOut,
    make_args,
)

PASSWORD = "canary-password-7319"
#: No part of one of these may be found.
CANARIES = ("canary", "zebra77", str(NUMBER), f"{NUMBER:,}")
#: The columns that have args and meta.
ALLOWED = {
    *(("oban_jobs", name) for name in ("args", "meta")),
    *(("oban_periodic", name) for name in ("declared", "override")),
}


WAITING = (JobState.AVAILABLE, JobState.EXECUTING)


class Findings:
    """Counts the texts that were searched, and the canaries in them."""

    def __init__(self) -> None:
        self.searched: Counter[str] = Counter()
        self.found: list[str] = []

    def search(self, place: str, shown: str) -> None:
        self.searched[place] += 1
        for canary in CANARIES:
            if (at := shown.find(canary)) != -1:
                self.found.append(f"{place}: {shown[max(0, at - 500) : at + 100]}")

    def report(self) -> None:
        counted = ", ".join(f"{count} {place}" for place, count in sorted(self.searched.items()))
        print(f"S5: canaries were found {len(self.found)} times in {counted}")
        assert "\n".join(self.found) == ""


class Capture(logging.Handler):
    """Searches the records of all loggers, as text, as JSON and with what other handlers can read."""

    def __init__(self, findings: Findings) -> None:
        super().__init__(logging.DEBUG)
        self.findings = findings
        self.formatters = (logging.Formatter("%(name)s %(message)s"), json_formatter("here"))

    def emit(self, record: logging.LogRecord) -> None:
        record.exc_text = None
        error = record.exc_info[1] if record.exc_info else None
        shown = [self.formatters[0].format(record), repr((record.args, error))]
        # Those about statements and connections are many, and have no fields of their own.
        if record.name.startswith("oban"):
            fields = {name: value for name, value in vars(record).items() if name != "exc_info"}
            shown.append(repr((fields, None if error is None else (error.args, vars(error)))))
            shown.append(self.formatters[1].format(record))
        self.findings.search("log records", "\n".join(shown))


@pytest.fixture
def findings() -> Findings:
    return Findings()


@pytest.fixture
def all_logs(findings: Findings) -> Iterator[None]:
    """Search what every logger of the process logs at any level."""
    handler = Capture(findings)
    root = logging.getLogger()
    names = [*logging.root.manager.loggerDict, "aiosqlite", "asyncio", "oban", "psycopg", "sqlalchemy"]
    loggers = [root, *map(logging.getLogger, {*names, "sqlalchemy.engine", "sqlalchemy.pool"})]
    levels = [(each, each.level) for each in loggers]
    for each in loggers:
        each.setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield
    root.removeHandler(handler)
    for each, level in levels:
        each.setLevel(level)


def with_password(url: URL) -> URL:
    return url.set(password=PASSWORD) if url.get_backend_name() == "postgresql" else url


async def search_tables(oban: Oban, findings: Findings) -> None:
    async with oban.engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            for row in (await connection.execute(select(table))).mappings():
                shown = {name: value for name, value in row.items() if (table.name, name) not in ALLOWED}
                findings.search("rows", f"{table.name}: {shown!r} {json.dumps(shown, default=str)}")


def new_jobs() -> list[Job]:
    meta = {"secret": META}
    jobs = [Leaks.new(make_args(how), meta=meta, tags=["a"]) for how in HOWS]
    jobs += [InThread.new(make_args(how), meta=meta) for how in ("repr", "discard", "report")]
    jobs += [InProcess.new(make_args(how), meta=meta) for how in ("repr", "group", "cancel", "report")]
    return [*jobs, *(worker.new(make_args("plain"), meta=meta) for worker in (TimesOut, Queries))]


async def run_and_search(oban: Oban, url: URL, findings: Findings) -> None:
    """Run jobs, and search what operators can see of them while the node works and afterwards."""
    jobs = await oban.enqueue_many(new_jobs())
    ids = [job.id for job in jobs]

    async def have_run() -> bool:
        found = await oban.list_jobs(select(Job).where(Job.id.in_(ids)))
        return not any(job.state in WAITING for job in found)

    await eventually(have_run, 30)
    await oban.update_job(jobs[0].id, {"meta": {"secret": META}, "priority": 3})
    for job in jobs:
        findings.search("explanations", f"{await oban.why(job.id)} {job!r}")
    await search_tables(oban, findings)
    for id_ in ids:
        findings.search("details in oban top", repr_of(await describe(oban, id_)))
    await asyncio.to_thread(search_commands, url, ids, findings)


# SQLite has no passwords.
@pytest.mark.parametrize(
    "factory", ["postgresql", pytest.param("sqlite", marks=pytest.mark.slow)], indirect=True
)
async def test_redacted_values_and_passwords_are_found_nowhere(
    url: URL, findings: Findings, all_logs: None, capfd: pytest.CaptureFixture[str]
) -> None:
    events: list[Event] = []
    entry = Periodic("nightly", "0 3 * * *", Leaks.new(make_args("plain"), meta={"secret": META}))
    oban = Oban(with_password(url), queues={"default": 30}, periodic=[entry], **BRIEF)
    metrics = metrics_app(oban, registry=CollectorRegistry())
    with tracing.recording() as recorder:
        async with oban:
            oban.telemetry.attach(events.append)
            await run_and_search(oban, with_password(url), findings)
            findings.search("scrapes", (await scrape(metrics)).text)
    for span in recorder.spans:
        findings.search("spans", span.to_json())
    for each in events:
        shown = repr(each)
        if isinstance(each, JobStarted | JobEnded):
            shown += repr((each.job.args, each.job.meta))
        if isinstance(each, JobsEnqueued):
            shown += repr([(view.args, view.meta) for view in each.jobs])
        findings.search("events", shown)
    findings.search("outputs", "".join(capfd.readouterr()))
    with capfd.disabled():
        findings.report()
    assert findings.searched["log records"] > 100
    assert findings.searched["commands"] > 60
    assert findings.searched["spans"] > len(HOWS)


def repr_of(renderable: Any) -> str:
    from rich.console import Console

    with (console := Console(width=500)).capture() as capture:
        console.print(renderable)
    return capture.get()


def search_commands(url: URL, ids: list[int], findings: Findings) -> None:
    """Run every command, with and without `--json`."""
    first, snoozed = str(ids[0]), str(ids[HOWS.index("snooze")])
    report = str(ids[HOWS.index("report")])
    commands = [
        *(["jobs", "show", str(id_)] for id_ in (ids[1], ids[6], *ids[-2:])),
        ["jobs", "show", report],
        ["jobs", "list"],
        ["jobs", "wait", report],
        ["jobs", "retry", snoozed, "--yes"],
        ["jobs", "update", snoozed, "--set-priority", "2", "--yes"],
        ["jobs", "update", snoozed, "--set-meta", json.dumps({"secret": META}), "--yes"],
        ["jobs", "show", snoozed],
        ["jobs", "cancel", snoozed, "--yes"],
        ["why", first, snoozed, report],
        ["top"],
        ["stats"],
        ["nodes"],
        ["check"],
        ["config"],
        ["install"],
        ["queues", "list"],
        ["queues", "pause", "other"],
        ["queues", "resume", "other"],
        ["queues", "start", "other"],
        ["queues", "scale", "other", "3"],
        ["queues", "stop", "other"],
        ["periodic", "list"],
        ["periodic", "show", "nightly"],
        ["periodic", "pause", "nightly"],
        ["periodic", "update", "nightly", "--meta", json.dumps({"secret": META})],
        ["periodic", "show", "nightly"],
        ["periodic", "reset", "nightly"],
        ["periodic", "run", "nightly"],
        ["periodic", "resume", "nightly"],
        ["periodic", "add", "weekly", "@weekly", Leaks.worker_name, "--args", json.dumps(make_args("plain"))],
        ["periodic", "delete", "weekly"],
        ["jobs", "delete", report, "--yes"],
        ["jobs", "list", "--no-such-option"],
        ["version"],
    ]  # fmt: skip
    environment = {"OBAN_DATABASE_URL": url.render_as_string(hide_password=False)}
    for command in commands:
        for json_option in ([], ["--json"]) if command != ["version"] else ([],):
            result = CliRunner().invoke(main, [*command, *json_option], env=environment)
            assert result.output
            assert isinstance(result.exception, SystemExit | None), result.exception
            findings.search("commands", f"{command}: {result.output}".replace(repr(command), command[0]))


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{PASSWORD}@127.0.0.1:1/x",
        f"postgresql+psycopg://u:{PASSWORD}@127.0.0.1:1/x",
        f"postgresql://u@127.0.0.1:1/x?password={PASSWORD}",
        f"postgresql://u:{PASSWORD}@127.0.0.1:1/x?sslpassword={PASSWORD}&sslmode=require",
        f"postgresql://u:a@{PASSWORD}@127.0.0.1:1/x",
        f"postgresql://u:a/{PASSWORD}@127.0.0.1:1/x",
        f"postgresql://u:{PASSWORD}@127.0.0.1:port/x",
        f"postgresql://u:{PASSWORD}@127.0.0.1:1,127.0.0.1:2/x",
        f"mysql://u:{PASSWORD}@127.0.0.1/x",
        f"u:{PASSWORD}@127.0.0.1/x",
        f"host=127.0.0.1 password={PASSWORD}",
        f"postgresql://u:{PASSWORD}@127.0.0.1:1/x".encode(),
    ],
)
def test_a_url_that_cannot_be_used_is_described_without_its_password(
    url: Any, findings: Findings, all_logs: None
) -> None:
    async def use(engine: Any, **options: Any) -> None:
        async with Oban(engine, **options) as oban:
            await oban.get_job(1)

    async def create(engine_url: Any) -> None:
        engine = create_async_engine(engine_url)
        async with Oban(engine) as oban:
            await oban.get_job(1)

    def use_sync() -> None:
        with SyncOban(url) as oban:
            oban.get_job(1)

    calls: list[Callable[[], Any]] = [
        lambda: asyncio.run(use(url)),
        lambda: asyncio.run(use("sqlite+aiosqlite://", listen_url=url, queues={"a": 1})),
        use_sync,
    ]
    if isinstance(url, str) and url.startswith("postgresql://") and "@127.0.0.1:1/" in url:
        calls.append(lambda: asyncio.run(create(url.replace("postgresql:", "postgresql+asyncpg:"))))
    for call in calls:
        with pytest.raises((ObanError, TypeError)) as raised:
            call()
        findings.search("errors", "".join(traceback.format_exception(raised.value)) + repr(raised.value))
    findings.report()
