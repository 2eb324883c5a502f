"""`oban queues`: queues are listed with their jobs and nodes, and commanded, in a terminal."""

import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import TypeAdapter
from sqlalchemy import insert

from oban import SyncOban
from oban.cli.documents import DOCUMENTS
from tests.support.commands import invoke
from tests.support.heartbeats import ago, send_heartbeats
from tests.support.rows import TABLE, row
from tests.support.terminal import Terminals

pytestmark = pytest.mark.either_database


def insert_jobs(client: SyncOban, *rows: dict[str, Any]) -> None:
    with client.engine.begin() as connection:
        connection.execute(insert(TABLE), list(rows))


def on(node: str, queue: str, *, paused: bool = False, running: tuple[int, ...] = ()) -> dict[str, Any]:
    meta = {"local_limit": 5, "paused": paused, "running": running}
    return {"node": node, "queue": queue, "meta": meta}


@pytest.fixture
def shop(operated: SyncOban) -> SyncOban:
    """A client of an instance with queues in each status."""
    insert_jobs(
        operated,
        *(row(queue="mail", scheduled_at=ago(hours=2, minutes=3, seconds=9)) for _ in range(3)),
        *(row(state, queue="mail") for state in ("scheduled", "retryable", "completed", "discarded")),
        row("executing", queue="media"),
        row("suspended", queue="old"),
    )
    send_heartbeats(
        operated.engine,
        *(on("web-1", "mail"), on("web-2", "mail", paused=True)),
        on("web-1", "media", paused=True, running=(8,)),
        on("web-1", "fast"),
    )
    operated.pause_queue("media")
    operated.pause_queue("mail", node="web-2")
    operated.scale_queue("mail", 7)
    operated.resume_all_queues(node="web-9")
    return operated


def test_a_wide_terminal_shows_jobs_nodes_and_settings(shop: SyncOban, terminals: Terminals) -> None:
    code, lines = terminals.run("queues", "list", columns=120)
    assert code == 0
    assert lines == [
        "QUEUE  STATUS         AVAILABLE  EXECUTING  OLDEST  SCHEDULED  RETRYABLE  NODES  LIMIT  SETTINGS",
        "fast   running                0          0       -          0          0      1      5  -",
        "mail   partly paused          3          0   2h03m          1          1      2     10"
        "  limit 7, paused on web-2",
        "media  paused                 0          1       -          0          0      1      5"
        "  paused, resumed on web-9",
        "old    idle                   0          0       -          0          0      0      -  -",
        "Stored for all queues: resumed on web-9.",
    ]


def test_a_narrow_terminal_shows_what_matters_most(shop: SyncOban, terminals: Terminals) -> None:
    code, lines = terminals.run("queues", "list", columns=60)
    assert code == 0
    assert lines == [
        "QUEUE  STATUS         AVAILABLE  EXECUTING  OLDEST",
        "fast   running                0          0       -",
        "mail   partly paused          3          0   2h03m",
        "media  paused                 0          1       -",
        "old    idle                   0          0       -",
        "Stored for all queues: resumed on web-9.",
    ]


def test_an_instance_without_queues_says_so(operated: SyncOban, terminals: Terminals) -> None:
    assert terminals.run("queues", "list") == (
        0,
        ["There are no queues: no jobs, no nodes and no stored commands."],
    )


def test_a_number_above_the_limit_of_counts_has_a_plus(operated: SyncOban, terminals: Terminals) -> None:
    insert_jobs(operated, *(row(queue="mail") for _ in range(3)))
    _, lines = terminals.run("queues", "list", "--count-limit", "2", columns=40)
    assert lines[1].split() == ["mail", "idle", "2+", "0"]


def test_json_has_all_that_is_known_about_a_queue(shop: SyncOban) -> None:
    result = invoke("queues", "list", "--json")
    queues = TypeAdapter(DOCUMENTS["queues list"]).validate_json(result.stdout)
    assert [replace(queue, oldest_available_age=None) for queue in queues] == [
        replace(queue, oldest_available_age=None) for queue in shop.stats().queues
    ]
    mail = next(queue for queue in json.loads(result.stdout) if queue["queue"] == "mail")
    assert (mail["counts"]["available"], mail["status"]) == (3, "partly paused")
    assert [node["node"] for node in mail["nodes"]] == ["web-1", "web-2"]


#: Commands about the queue `mail`, what they print, and what is stored then: running, limit and paused.
COMMANDS: list[tuple[str, str, tuple[Any, ...]]] = [
    ("pause mail", "mail is paused on all nodes.", (None, None, True)),
    ("resume mail", "mail is resumed on all nodes.", (None, None, False)),
    ("scale mail 1234", "mail is limited to 1,234 jobs at once on all nodes.", (None, 1234, None)),
    ("scale mail --configured", "mail is limited as configured on all nodes.", (None, 0, None)),
    ("scale mail 1", "mail is limited to 1 job at once on all nodes.", (None, 1, None)),
    ("start mail", "mail is started with up to 10 jobs at once on all nodes.", (True, 10, False)),
    (
        "start mail --limit 3 --paused",
        "mail is started, but paused, with up to 3 jobs at once on all nodes.",
        (True, 3, True),
    ),
    ("stop mail", "mail is stopped on all nodes.", (False, None, None)),
]


@pytest.mark.parametrize("columns", [120, 60])
def test_each_command_is_stored_and_reported(operated: SyncOban, terminals: Terminals, columns: int) -> None:
    send_heartbeats(operated.engine, on("web-1", "mail"))
    for command, said, stored in COMMANDS:
        operated.stop_queue("mail")
        operated.scale_queue("mail", None)
        operated.resume_queue("mail")
        code, lines = terminals.run("queues", *command.split(), columns=columns)
        # A narrow terminal breaks a line anywhere.
        assert (code, "".join(lines).replace(" ", "")) == (0, said.replace(" ", ""))
        (entry,) = operated.list_queue_settings("mail")
        values = (entry.running, entry.limit, entry.paused)
        before = (False, 0, False)
        expected = tuple(old if new is None else new for old, new in zip(before, stored, strict=True))
        assert (entry.node, values) == (None, expected)


def test_a_command_can_be_about_one_node(operated: SyncOban, terminals: Terminals) -> None:
    send_heartbeats(operated.engine, on("web-1", "mail"))
    code, lines = terminals.run("queues", "pause", "mail", "--node", "web-1", "--json")
    entries = TypeAdapter(DOCUMENTS["queues pause"]).validate_json("\n".join(lines))
    assert (code, entries) == (0, operated.list_queue_settings("mail"))
    assert [(entry.node, entry.paused) for entry in entries] == [("web-1", True)]


def test_a_queue_or_node_that_is_not_running_is_pointed_out(operated: SyncOban, terminals: Terminals) -> None:
    send_heartbeats(operated.engine, on("web-1", "mail"))
    code, lines = terminals.run("queues", "pause", "mial", "--node", "wb-1", columns=120)
    assert code == 0
    assert lines == [
        "mial is paused on the node wb-1.",
        "No node runs the queue mial now. The command is stored for later. Did you mean mail?",
        "No node is named wb-1 now. The command is stored for later. Did you mean web-1?",
    ]
    assert terminals.run("queues", "start", "new")[1] == [
        "new is started with up to 10 jobs at once on all nodes."
    ]


@pytest.mark.parametrize(("verb", "paused"), [("pause", True), ("resume", False)])
def test_a_command_for_all_queues_asks_for_confirmation(
    operated: SyncOban, terminals: Terminals, verb: str, paused: bool
) -> None:
    for answer, code in (("n", 1), ("y", 0)):
        with terminals.open("queues", verb, "--all", columns=60) as terminal:
            terminal.wait_for(f"{verb.title()} all queues on all nodes? [y/N]:")
            terminal.press(f"{answer}\r")
            assert terminal.finish() == code
        assert len(operated.list_queue_settings()) == (answer == "y")
    assert terminal.lines[-1] == f"All queues are {verb}d on all nodes."
    assert [(entry.queue, entry.paused) for entry in operated.list_queue_settings()] == [("*", paused)]


@pytest.mark.parametrize("operated", ["sqlite"], indirect=True)
def test_wrong_usage_is_refused_before_anything_is_stored(operated: SyncOban) -> None:
    for arguments, error in (
        (("pause",), "Pass either QUEUE or --all."),
        (("resume", "mail", "--all"), "Pass either QUEUE or --all."),
        (("scale", "mail"), "Pass either LIMIT or --configured."),
        (("scale", "mail", "5", "--configured"), "Pass either LIMIT or --configured."),
        (("scale", "mail", "0"), "0 is not in the range 1<=x<=10000"),
        (("pause", "--all"), "Confirm with --yes, as the input is not a terminal."),
    ):
        result = invoke("queues", *arguments)
        assert result.exit_code == 2
        assert error in result.output
    assert invoke("queues", "pause", "a b").exit_code == 1
    assert operated.list_queue_settings() == []
    assert invoke("queues", "pause", "--all", "--yes").exit_code == 0


@pytest.mark.parametrize("operated", ["sqlite"], indirect=True)
def test_names_from_the_database_cannot_control_the_terminal(
    operated: SyncOban, terminals: Terminals
) -> None:
    send_heartbeats(operated.engine, on("\x1b[2Jweb", "ma\x1b[31mil"))
    insert_jobs(operated, row(queue="ma\x1b[31mil"))
    for command in (["queues", "list"], ["nodes"], ["stats"]):
        with terminals.open(*command, columns=120, environment={"NO_COLOR": "1"}) as terminal:
            assert terminal.finish() == 0
        assert b"\x1b[31m" not in terminal.output
        assert b"\x1b[2J" not in terminal.output
