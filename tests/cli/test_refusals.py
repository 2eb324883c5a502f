"""What the database or the operating system refuses ends each command with one line and the exit code 1."""

import errno
from pathlib import Path

import pytest
from sqlalchemy import URL

from oban.cli import output
from oban.cli.documents import DOCUMENTS
from tests.cli.shop import Shop
from tests.support.commands import invoke, text
from tests.support.terminal import Terminals
from tests.support.waiting import Deadline

#: The arguments of each command that needs some.
ARGUMENTS = {
    **{f"jobs {verb}": "1" for verb in ("show", "wait", "cancel", "retry", "delete")},
    "jobs update": "1 --set-priority 0",
    "periodic add": "nightly @daily app.Report",
    "periodic update": "nightly --queue slow",
    **{f"periodic {verb}": "nightly" for verb in ("show", "pause", "resume", "reset", "run", "delete")},
    **{f"queues {verb}": "mail" for verb in ("pause", "resume", "start", "stop")},
    "queues scale": "mail 3",
    "why": "1",
    "top": "--once",
}
#: Commands that need no statement, have exit codes of their own, or say that the tables are not changed.
OTHER = {"config", "check", "install", "uninstall"}


def refused(environment: dict[str, str]) -> dict[str, str]:
    """The errors of all commands."""
    errors = {}
    for command in sorted(DOCUMENTS.keys() - OTHER):
        result = invoke(*command.split(), *ARGUMENTS.get(command, "").split(), **environment)
        assert (result.exit_code, result.stdout) == (1, ""), (command, result.output)
        errors[command] = result.stderr
    return errors


def test_a_privilege_that_is_missing_is_named(postgresql_url: URL, terminals: Terminals) -> None:
    shop = Shop(postgresql_url, terminals)
    role = f"{postgresql_url.database}_guest"
    with shop.connected() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
    try:
        for command, error in refused({"OBAN_DATABASE_URL": text(postgresql_url.set(username=role))}).items():
            assert error.startswith("Error: the database has refused a statement: permission denied for"), (
                command
            )
            assert error.count("\n") == 1, command
    finally:
        with shop.connected() as connection:
            connection.exec_driver_sql(f"DROP ROLE {role}")


def test_a_file_that_does_not_exist_is_named_and_not_created(folder: Path) -> None:
    environment = {"OBAN_DATABASE_URL": "sqlite+aiosqlite:///missing.db"}
    for command, error in refused(environment).items():
        assert error.startswith("Error: the file "), command
        assert "missing.db does not exist, so there are no Oban tables" in error, command
    assert invoke("check", **environment).exit_code == 2
    assert not (folder / "missing.db").exists()


def test_a_file_that_is_spoilt_is_named(sqlite_url: URL) -> None:
    assert sqlite_url.database
    Path(sqlite_url.database).write_bytes(b"x" * 8192)
    for command, error in refused({"OBAN_DATABASE_URL": text(sqlite_url)}).items():
        assert error == "Error: the database has refused a statement: file is not a database\n", command


def test_a_connection_that_is_lost_is_named(postgresql_url: URL, terminals: Terminals) -> None:
    shop = Shop(postgresql_url, terminals)
    waiting = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND relation IS NOT NULL"
    deadline = Deadline(10)
    with shop.connected() as connection, shop.connected() as other:
        connection.exec_driver_sql("LOCK oban_jobs IN ACCESS EXCLUSIVE MODE")
        with terminals.open("why", "1", columns=200, environment=shop.environment) as terminal:
            while not other.exec_driver_sql(waiting).all():
                assert not deadline.passed()
            assert terminal.finish() == 1
            [line] = terminal.lines
    assert line.startswith("Error: the connection to the database was lost: ")


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "Error: [Errno 28] No space left on device\n"),
        (TimeoutError(), "Error: TimeoutError\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), ""),
    ],
)
def test_output_that_cannot_be_written_is_an_error(
    sqlite_url: URL, monkeypatch: pytest.MonkeyPatch, error: Exception, shown: str
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(output, "document", refuse)
    result = invoke("nodes", "--json", "--database-url", text(sqlite_url))
    assert (result.exit_code, result.output) == (1, shown)
