"""`oban top`: shows what happens, and its keys act on the database."""

import json
import re
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from sqlalchemy import URL, create_engine, insert
from sqlalchemy import text as sql

from oban import Job, Oban, SyncOban, migration
from oban.cli.documents import json_schema
from oban.cli.top.layout import divide
from oban.cli.top.source import Source
from oban.cli.top.tables import number
from tests.support.commands import invoke, text
from tests.support.databases import SQLiteFactory
from tests.support.statements import recorded
from tests.support.terminal import Terminal, Terminals
from tests.support.waiting import Deadline

END, ESCAPE, ENTER, TAB = "\x1b[F", "\x1b", "\r", "\t"
HEADINGS = ("QUEUES", "EXECUTING", "FAILURES", "NODES")
EVIL = "evil[red]\x1b[2J\x1b]0;owned\x07\u202e"
SYNC_DRIVERS = {"sqlite+aiosqlite": "sqlite", "postgresql+asyncpg": "postgresql+psycopg"}
FILMS = """
import asyncio
from oban import Worker

class Film(Worker, name="film"):
    async def process(self, job):
        job.progress(1, 2, "half of it")
        job.log.info("cutting %s", job.args)
        print("film has begun", flush=True)
        await asyncio.sleep(3600)

class Broken(Worker, name="broken", max_attempts=1):
    async def process(self, job):
        job.log.info("about to break")
        raise ValueError("broken \\x1b]0;owned\\x07")
"""
_NOW = datetime.now(UTC)


def sync(url: URL) -> URL:
    return url.set(drivername=SYNC_DRIVERS[url.drivername])


@pytest.fixture
def client(url: URL) -> Iterator[SyncOban]:
    with SyncOban(sync(url)) as oban:
        yield oban


def row(worker: str, state: str, **values: Any) -> dict[str, Any]:
    """A job that another program has stored, maybe with a state that only a run leads to."""
    usual = {"queue": "mail", "args": {}, "meta": {}, "attempt": 3, "attempted_at": _NOW, "errors": []}
    return {"worker": worker, "state": state, **usual, **values}


def store(url: URL, *rows: dict[str, Any]) -> None:
    engine = create_engine(sync(url))
    with engine.begin() as connection:
        for values in rows:
            connection.execute(insert(Job).values(**values))
    engine.dispose()


def failure(message: str, **values: Any) -> dict[str, Any]:
    trace = f'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\n    ~^^\n{message}'
    error = {"attempt": 3, "at": "2026-01-01T00:00:00", "error": trace}
    return row("app.Mail", "discarded", discarded_at=_NOW, errors=[error], **values)


def until(condition: Any) -> Any:
    deadline = Deadline(10)
    while not (value := condition()):
        assert not deadline.passed(), condition
        time.sleep(0.02)
    return value


def line(terminal: Terminal, start: str) -> str:
    """The first line on the screen that begins with a text."""
    return next((line for line in terminal.lines if line.startswith(start)), "")


# Other tests read what it shows from each database.
@pytest.mark.slow
@pytest.mark.parametrize("factory", ["sqlite"], indirect=True)
def test_a_session(url: URL, client: SyncOban, folder: Path, terminals: Terminals) -> None:
    """One session, because each costs as much CPU time as a hundred assertions."""
    (folder / "app" / "films.py").write_text(FILMS)
    client.enqueue(Job(worker="broken", queue="media", max_attempts=1))
    film = client.enqueue(Job(worker="film", queue="media", args={"film": 7}))
    for _ in range(3):
        client.enqueue(Job(worker="film", queue="media", priority=9))
    store(
        url,
        failure("app.Refused: the server [bold]refused[/]\nmore"),
        row(
            EVIL,
            "retryable",
            queue=EVIL,
            args={"key": EVIL},
            errors=[{"attempt": 3, "error": EVIL}],
            scheduled_at=_NOW + timedelta(hours=1),
        ),
    )
    database = ("--database-url", text(url))
    media = ("--queues", "media:2", "--import", "app.films", "--node", "web-1")
    with (
        terminals.open("start", *database, *media) as node,
        terminals.open("top", *database, "--interval", "0.5", columns=160, rows=50) as top,
    ):
        node.wait_for("film has begun")
        top.wait_for("━━━━━━──────  50%  half of it")
        assert str(url.database) in top.lines[0]
        top.wait_for("leader web-1 · 1 node · 2 of 2 executing")
        top.wait_for(lambda _: line(top, "media").split()[:4] == ["media", "running", "2", "2"])
        top.wait_for("app.Refused: the server [bold]refused[/]")
        # Nothing that a job contains moves the cursor or sets a style.
        top.wait_for(repr(EVIL)[:20])
        assert b"owned\x07" not in top.output

        # A queue: pause, resume, scale, in the database and at once on the screen.
        top.press(END)
        top.press("p")
        until(lambda: [each.paused for each in client.list_queue_settings("media")] == [True])
        top.wait_for(lambda _: "paused" in line(top, "media"))
        top.press("u")
        top.wait_for(lambda _: "running" in line(top, "media"))
        top.press("++-+")
        until(lambda: [each.limit for each in client.list_queue_settings("media")] == [4])
        top.wait_for(lambda _: line(top, "media").split()[7] == "4")

        # An executing job: its details, and a cancellation that is confirmed.
        top.press(TAB)
        top.press(ENTER)
        shown = top.wait_for('"film": 7')
        assert re.search(r"state +executing\n", shown)
        assert re.search(r"node +web-1\n", shown)
        assert client.why(film.id).reasons[0].text[:30] in shown
        top.press(ESCAPE)
        top.wait_for("FAILURES")
        top.press("c")
        top.wait_for(f"Cancel job {film.id} of film, which is executing?")
        top.press("n")
        top.wait_for(lambda shown: "y yes" not in shown)
        assert client.get_job(film.id).state == "executing"  # type: ignore[union-attr]
        top.press("c")
        top.wait_for("y yes")
        top.press("y")
        top.wait_for(f"Job {film.id} was cancelled.")
        assert client.get_job(film.id).state == "cancelled"  # type: ignore[union-attr]

        # Failures: the latest first; their order can be changed; one is retried and one deleted.
        top.press(TAB)
        discarded = next(job for job in client.list_jobs() if job.worker == "app.Mail")
        top.press("s")
        top.wait_for("FAILURES▾")
        top.press("r")
        top.wait_for(f"Retry job {discarded.id} of app.Mail, which is discarded?")
        top.press("y")
        top.wait_for(f"Job {discarded.id} was retried.")
        assert client.get_job(discarded.id).state == "available"  # type: ignore[union-attr]
        top.wait_for(lambda _: not line(top, "app.Mail"))
        top.press(ENTER)
        shown = top.wait_for("\n  ValueError: broken \\x1b]0;owned\\x07\n")
        assert "INFO about to break\n" in shown
        assert re.search(r"Attempt 1: failed at .+ UTC, after \d+\.\d s on web-1\n", shown)
        top.press(ESCAPE)
        top.wait_for("FAILURES")
        top.press(END)
        top.press(ENTER)
        shown = top.wait_for("Error of attempt 3")
        assert repr(EVIL)[1:-1] in shown
        top.press("d")
        top.wait_for("which is retryable?")
        top.press("y")
        top.wait_for("was deleted.")
        top.wait_for(lambda _: not line(top, repr(EVIL)[:8]))
        top.wait_for(lambda _: line(top, "broken"))

        # A filter, which also names what it hides; help; another interval.
        top.press("/")
        top.wait_for("whose name contains")
        top.press("mail" + ENTER)
        top.wait_for(lambda shown: "filter: mail" in shown and not line(top, "media"))
        top.press(ESCAPE)
        top.wait_for(lambda _: line(top, "media"))
        top.press("?")
        top.wait_for("set the seconds between two refreshes")
        top.press(ESCAPE)
        top.wait_for("QUEUES")
        top.press("i")
        top.wait_for("Seconds between two refreshes")
        top.press("x" + ENTER)
        top.wait_for("is needed")
        top.press("0.7" + ENTER)
        top.wait_for("every 0.7 s")

        # A window that becomes small.
        top.resize(60, 20)
        top.wait_for(lambda _: all(line(top, heading) for heading in HEADINGS) and "?" in top.lines[-1][:1])
        assert len(top.lines) == 20
        top.wait_for("web-1")
        top.press("q")
        assert top.finish() == 0
        assert b"\x1b[?1049l" in top.output[-200:]
        assert b"\x1b[?25h" in top.output[-200:]


def test_an_outage_is_shown_and_ends(postgresql_url: URL, terminals: Terminals) -> None:
    name = postgresql_url.database
    administration = create_engine(
        sync(postgresql_url).set(database="postgres"), isolation_level="AUTOCOMMIT"
    )
    terminate = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    with (
        terminals.open("top", "--database-url", text(postgresql_url), "--interval", "0.5", columns=60) as top,
        administration.connect() as server,
    ):
        top.wait_for("no job is executing")
        server.execute(sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        server.execute(sql(terminate))
        top.wait_for("cannot reach the database")
        # What was there before stays on the screen.
        assert all(line(top, heading) for heading in HEADINGS)
        server.execute(sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
        top.wait_for("0 nodes")
        top.press("\x03")
        assert top.finish() == 0
    administration.dispose()


def test_a_signal_leaves_the_terminal_as_it_was(sqlite_url: URL, terminals: Terminals) -> None:
    environment = {"NO_COLOR": "1"}
    with terminals.open("top", "--database-url", text(sqlite_url), environment=environment) as top:
        top.wait_for("no node runs queues")
        top.kill(signal.SIGTERM)
        assert top.finish() == 128 + signal.SIGTERM
        assert b"\x1b[?1049l" in top.output
        assert b"\x1b[?25h" in top.output
        # No colours, apart from the default ones.
        codes = {
            int(code) for codes in re.findall(rb"\x1b\[([\d;]+)m", top.output) for code in codes.split(b";")
        }
        assert codes.isdisjoint({*range(30, 39), *range(40, 49), *range(90, 98), *range(100, 108)})


@pytest.mark.parametrize("columns", [60, 160])
def test_one_snapshot_as_text(url: URL, client: SyncOban, terminals: Terminals, columns: int) -> None:
    client.enqueue(Job(worker="app.Mail", queue="mail"))
    store(url, failure("app.Refused: no"), row(EVIL, "executing", attempted_by=["web-1", "x"]))
    code, lines = terminals.run("top", "--once", "--database-url", text(url), columns=columns)
    assert code == 0, lines
    assert all(len(line) <= columns for line in lines)
    headings = [line.split()[0] for line in lines if line.startswith(HEADINGS)]
    assert headings == ["QUEUES", "EXECUTING", "FAILURES", "NODES"]
    assert next(line for line in lines if line.startswith("mail")).split()[:4] == ["mail", "idle", "1", "1"]
    assert any("app.Refused" in line for line in lines)


def test_one_snapshot_as_json(sqlite_url: URL) -> None:
    progress = {"attempt": 3, "done": 3, "total": 10, "message": "three", "at": _NOW.isoformat()}
    store(
        sqlite_url,
        failure("app.Refused: no"),
        row("app.Film", "executing", meta={"progress": progress}, attempted_by=["web-1", "x"]),
        row("app.Film", "executing", meta={"progress": {**progress, "at": "2026-01-01T00:00:00Z"}}),
        row("app.Film", "executing", meta={"progress": {"attempt": 3, "done": "x", "message": []}}),
        row("app.Wait", "available", scheduled_at=_NOW - timedelta(minutes=2)),
    )
    with sqlite3.connect(str(sqlite_url.database)) as connection:
        # SQLite lets other programs store anything.
        wrong = "worker = x'ff', attempted_by = '7', meta = '[]', errors = '{}', attempted_at = 'never'"
        connection.execute(
            "INSERT INTO oban_jobs (state, queue, worker, errors) VALUES ('executing', 'mail', 'w', '[]')"
        )
        connection.execute(f"UPDATE oban_jobs SET {wrong} WHERE worker = 'w'")
    result = invoke("top", "--json", "--database-url", text(sqlite_url))
    document = json.loads(result.output)
    schema = json_schema()
    jsonschema.validate({"top": document}, schema)
    assert document["instance"] == "Oban"
    (queue,) = document["queues"]
    assert (queue["available"], queue["executing"], queue["nodes"], queue["limits"]) == (1, 4, 0, [])
    # The time of the row is that when this module was imported.
    assert 120 <= queue["oldest"] < 7200
    shown = [job["progress"] for job in document["executing"]]
    assert shown[0] == {"done": 3, "total": 10, "message": "three"}
    # That of an earlier attempt, and what another program has stored.
    assert shown[1:] == [None, None, None]
    assert [failure["error"] for failure in document["failures"]] == ["app.Refused: no"]
    assert invoke("top", "--json", "--filter", "FILM", "--database-url", text(sqlite_url)).exit_code == 0


def test_without_a_terminal_the_live_view_says_what_to_use(sqlite_url: URL) -> None:
    result = invoke("top", "--database-url", text(sqlite_url))
    assert result.exit_code == 2
    assert "Use --once to print it once, or --json for other programs." in result.output


def test_without_textual_the_live_view_says_how_to_install_it(
    sqlite_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*sys.modules]:
        if name.startswith(("textual", "oban.cli.top.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "textual", None)
    result = invoke("top", "--database-url", text(sqlite_url))
    assert result.exit_code == 1
    assert "pip install 'oban-sqlalchemy[top]'" in result.output
    assert len(result.output.splitlines()) == 1
    assert invoke("top", "--once", "--database-url", text(sqlite_url)).exit_code == 0


def test_a_database_without_tables_is_an_error_before_the_screen_changes(
    sqlite_factory: SQLiteFactory, terminals: Terminals
) -> None:
    empty = sqlite_factory.create(empty=True)
    with terminals.open("top", "--database-url", text(empty)) as top:
        assert top.finish() == 1
        assert "oban install" in top.text
        assert b"\x1b[?1049h" not in top.output


def test_it_never_starts_the_queues_of_an_application(sqlite_url: URL, folder: Path) -> None:
    (folder / "app" / "jobs.py").write_text(
        f"from oban import Oban\noban = Oban({text(sqlite_url)!r}, queues={{'default': 1}}, name='shop')\n"
    )
    with SyncOban(sync(sqlite_url), name="shop") as client:
        job = client.enqueue(Job(worker="echo"))
        result = invoke("top", "--once", "--app", "app.jobs:oban")
        assert result.exit_code == 0, result.output
        assert result.output.startswith("shop")
        assert client.check_cluster() == []
        assert client.get_job(job.id).state == "available"  # type: ignore[union-attr]


def test_a_schema_of_its_own_is_read(postgresql_url: URL) -> None:
    migration.upgrade(postgresql_url, prefix="own")
    with SyncOban(sync(postgresql_url), prefix="own") as client:
        client.enqueue(Job(worker="app.Mail"))
        engine = create_engine(sync(postgresql_url)).execution_options(schema_translate_map={None: "own"})
        with engine.begin() as connection:
            connection.execute(insert(Job).values(**failure("Refused: no")))
            connection.execute(insert(Job).values(**row("app.Film", "executing")))
        engine.dispose()
    options = ("--database-url", text(postgresql_url), "--prefix", "own")
    document = json.loads(invoke("top", "--json", *options).output)
    assert [queue["available"] for queue in document["queues"]] == [1, 0]
    assert [job["worker"] for job in document["executing"]] == ["app.Film"]
    assert [job["error"] for job in document["failures"]] == ["Refused: no"]


async def test_a_refresh_takes_as_many_statements_however_many_jobs_there_are(url: URL, oban: Oban) -> None:
    async def statements() -> int:
        source = Source(oban)
        try:
            # The errors of failures are read once.
            await source.read()
            with recorded(source.engine) as sent:
                await source.read()
            return len([each for each in sent if each.lstrip().startswith(("SELECT", "WITH"))])
        finally:
            await source.close()

    await oban.enqueue(Job(worker="app.Mail"))
    store(url, failure("Refused: no"), row("app.Film", "executing"))
    few = await statements()
    await oban.enqueue_many(Job(worker="app.Mail") for _ in range(500))
    engine = create_engine(sync(url))
    with engine.begin() as connection:
        connection.execute(insert(Job), [failure("Refused: no") for _ in range(300)])
        connection.execute(insert(Job), [row("app.Film", "executing") for _ in range(300)])
    engine.dispose()
    assert await statements() == few <= 16
    source = Source(oban)
    snapshot = await source.read()
    await source.close()
    assert (len(snapshot.executing), len(snapshot.failures)) == (200, 100)


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0"), (9999, "9999"), (12_345, "12.3k"), (1_000_000, "1.0M"), (2.5e9, "2.5G")]
)
def test_numbers(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("lines", "wanted", "focused", "heights"),
    [
        (40, [5, 5, 5, 3], 0, [5, 5, 5, 3]),
        # The table with the focus gets more.
        (17, [20, 20, 20, 20], 1, [4, 7, 3, 3]),
        (17, [2, 20, 20, 2], 1, [2, 9, 4, 2]),
        # There is only room for one.
        (6, [5, 5, 5, 5], 2, [0, 0, 6, 0]),
    ],
)
def test_lines_are_divided_among_the_tables(
    lines: int, wanted: list[int], focused: int, heights: list[int]
) -> None:
    assert divide(lines, wanted, focused) == heights
