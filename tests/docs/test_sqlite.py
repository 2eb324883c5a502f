"""What `docs/guides/sqlite.md` says about names and pools is so, and its code runs."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click import Context
from sqlalchemy import make_url

from oban import dialects, migration
from oban.cli import main
from oban.notifier import poll
from tests.docs.commands import commands, run
from tests.docs.snippets import fenced
from tests.support.processes import ROOT

PAGE = "docs/guides/sqlite.md"


async def test_only_the_job_outside_of_the_transaction_is_kept() -> None:
    (code,) = [each for each in fenced(PAGE, "python") if "rolled_back" in each]
    names: dict[str, object] = {}
    exec(compile(code, PAGE, "exec"), names)
    (job,) = await names["rolled_back"]()  # type: ignore[operator]
    assert job.worker == "app.Kept"


def test_the_commands_of_the_page_create_the_tables_and_could_start_two_nodes(tmp_path: Path) -> None:
    install, start = commands(PAGE)
    run(install, tmp_path)
    assert (tmp_path / "app.db").exists()
    command = main.get_command(Context(main), start[1])
    assert command is not None
    with command.make_context(start[1], start[2:]) as context:
        assert (context.params["processes"], install[2:4]) == (2, start[2:4])


def test_a_backup_has_the_jobs_that_are_in_the_log_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    migration.upgrade("sqlite:///app.db")
    (code,) = [each for each in fenced(PAGE, "python") if "backup" in each]
    with closing(sqlite3.connect("app.db")) as writing:
        writing.execute("PRAGMA journal_mode = WAL")
        with writing:
            writing.execute("INSERT INTO oban_jobs (worker) VALUES ('kept')")
        assert (tmp_path / "app.db-wal").stat().st_size > 0
        names: dict[str, Any] = {}
        exec(code, names)
        names["source"].close()
        names["target"].close()
    with closing(sqlite3.connect("backup.db")) as restored:
        assert restored.execute("SELECT worker FROM oban_jobs").fetchall() == [("kept",)]


def test_the_counter_is_read_as_often_as_the_page_says() -> None:
    assert f"every {poll.POLL_INTERVAL * 1000:g} ms" in (ROOT / PAGE).read_text()


ROWS = re.findall(r"^\| (`sqlite:.*?) \| (.*) \|$", (ROOT / PAGE).read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("url", "kind"), [(url, kind) for urls, kind in ROWS for url in re.findall("`(.*?)`", urls)]
)
def test_the_table_names_files_and_databases_in_memory(url: str, kind: str) -> None:
    assert dialects.by_name("sqlite").is_memory(make_url(url)) == kind.startswith("in memory")


def test_the_table_is_complete() -> None:
    assert len(ROWS) == 4
