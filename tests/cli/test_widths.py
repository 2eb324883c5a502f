"""Each command that other tests run in wide terminals only, in a narrow one, with all that it prints."""

import re

import pytest

import oban
from oban.cli import main
from tests.cli.shop import Shop
from tests.support.commands import invoke
from tests.support.rows import row

NARROW, WIDE = 36, 160
ENTRY = """
Name:           nightly
State:          active, changed
Source:         added at run time
Expression:     @daily
Time zone:      UTC
Last (UTC):     -
Next (UTC):     AT
Catch up:       latest, within 60 minutes
Worker:         app.Report
Queue:          default
Priority:       1
Max attempts:   -
Args:           {}
Tags:           -
Meta:           {}
Changed:        {"priority": 1}
"""
#: The commands of one session, with their width, their exit code and what they print. `AT` is a time. There
#: are the jobs 1 (available), 2 (discarded), 3 (executing) and 4 (completed).
SESSION: list[tuple[int, str, int, str]] = [
    (NARROW, "version", 0, f"oban {oban.__version__}"),
    (NARROW, "install", 0, "The Oban tables are in place."),
    (WIDE, "install", 0, "The Oban tables are in place."),
    (NARROW, "jobs wait 4 --timeout 5s", 0, "Job 4 is completed."),
    (NARROW, "jobs wait 1 --timeout 0.01s", 3, "Job 1 is still available after 0.01 seconds."),
    (NARROW, "jobs cancel 1 99", 0, "1 job was cancelled. There is no job 99."),
    (NARROW, "jobs retry 1 3", 0, "1 job was retried. Job 3 is left alone: it is executing."),
    (NARROW, "jobs update 1 --set-priority 0", 0, "1 job was updated."),
    (
        NARROW,
        "jobs delete 3 4",
        0,
        "1 job was deleted. Job 3 is left alone: it is executing; cancel it first.",
    ),
    (
        *(NARROW, "jobs delete --all --dry-run", 0),
        "2 jobs would be deleted: 1 available, 1 discarded. 1 job would be left alone: 1 executing.",
    ),
    (NARROW, "periodic add nightly @daily app.Report", 0, "nightly was added. Its next time is AT UTC."),
    (NARROW, "periodic update nightly --priority 1", 0, "nightly was changed. Its next time is AT UTC."),
    (NARROW, "periodic show nightly", 0, ENTRY),
    (NARROW, "periodic run nightly", 0, "Job 5 of nightly is in the queue default."),
    (WIDE, "periodic run nightly", 0, "Job 6 of nightly is in the queue default."),
    (NARROW, "periodic pause nightly", 0, "nightly is paused."),
    (NARROW, "periodic resume nightly", 0, "nightly is active."),
    (WIDE, "periodic resume nightly", 0, "nightly is active."),
    (NARROW, "periodic reset nightly", 0, "nightly is as it was declared. Its next time is AT UTC."),
    (NARROW, "periodic delete nightly", 0, "nightly was deleted."),
    (NARROW, "periodic delete nightly", 1, "Error: no periodic entry is named 'nightly'"),
    (NARROW, "uninstall --yes", 0, "The Oban tables were dropped."),
    (WIDE, "uninstall --yes", 0, "No Oban tables are installed."),
]


#: Tests of their own run these in terminals of both widths.
ELSEWHERE = {
    *(
        "check",
        "config",
        "jobs list",
        "jobs show",
        "nodes",
        "periodic list",
        "queues list",
        "stats",
        "top",
        "why",
    ),
    *(f"queues {verb}" for verb in ("pause", "resume", "scale", "start", "stop")),
}


def squeezed(text: str) -> str:
    """A text without white space, because a narrow terminal breaks a line anywhere."""
    return re.sub(r"\d{4}-\d\d-\d{4}:\d\d:\d\d", "AT", "".join(text.split()))


@pytest.mark.either_database
def test_an_error_of_a_start_is_readable(shop: Shop) -> None:
    with shop.connected() as connection:
        connection.exec_driver_sql("DROP TABLE oban_attempts")
    for width in (NARROW, WIDE):
        code, lines = shop.terminals.run("start", columns=width, environment=shop.environment)
        assert code == 1
        error = "".join(lines).partition("Error: ")[2]
        assert squeezed(error).startswith(
            "thetablesinsqlite" if "sqlite" in str(shop.url) else "thetablesinp"
        )
        assert "thereisnotableoban_attempts,whichrevision0007adds;updatethemwith`obaninstall" in squeezed(
            error
        )


def test_the_script_of_the_completion_is_not_changed_by_a_terminal(sqlite_shop: Shop) -> None:
    with sqlite_shop.terminals.open("completion", "bash", columns=NARROW) as terminal:
        assert terminal.finish() == 0
    assert terminal.output.decode().replace("\r\n", "\n") == invoke("completion", "bash").stdout


@pytest.mark.either_database
def test_a_session(shop: Shop) -> None:
    shop.add_all([row("available"), row("discarded"), row("executing"), row("completed")])
    environment = {**shop.environment, "NO_COLOR": "1"}
    for width, command, code, text in SESSION:
        with shop.terminals.open(*command.split(), columns=width, environment=environment) as terminal:
            assert terminal.finish() == code, (command, terminal.text)
        assert b"\x1b" not in terminal.output, command
        assert squeezed(terminal.text) == squeezed(text), command
        if width == WIDE:
            assert terminal.lines == [text], command


def test_every_command_is_run_in_a_narrow_terminal() -> None:
    commands = {
        f"{name} {verb}".strip()
        for name, group in main.commands.items()
        for verb in getattr(group, "commands", [""])
    }
    narrow = {command for width, command, _, _ in SESSION if width == NARROW}
    in_session = {
        command for command in commands if any(f"{each} ".startswith(f"{command} ") for each in narrow)
    }
    assert commands - in_session == ELSEWHERE | {
        *("start", "web", "completion", "metrics dashboard", "metrics alerts"),
    }
