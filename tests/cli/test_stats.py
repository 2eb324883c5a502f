"""`oban stats`: the numbers of jobs, what finished lately, queues and nodes, in a terminal."""

from dataclasses import replace

import pytest
from pydantic import TypeAdapter
from sqlalchemy import insert

from oban import SyncOban
from oban.cli.documents import DOCUMENTS
from tests.support.commands import invoke
from tests.support.heartbeats import ago, elect, send_heartbeats
from tests.support.rows import TABLE, row
from tests.support.terminal import Terminals

pytestmark = pytest.mark.either_database


@pytest.fixture
def shop(operated: SyncOban) -> SyncOban:
    """A client of an instance with jobs in several states, a live node and a dead one."""
    rows = [
        *(row(queue="mail", scheduled_at=ago(hours=2, minutes=3, seconds=9)) for _ in range(3)),
        *(row("completed", queue="mail", completed_at=ago(minutes=minutes)) for minutes in (0.1, 5, 90)),
        row("discarded", queue="media", discarded_at=ago(minutes=7)),
        row("retryable", queue="media", scheduled_at=ago(minutes=1)),
    ]
    with operated.engine.begin() as connection:
        connection.execute(insert(TABLE), rows)
    send_heartbeats(
        operated.engine,
        {"node": "web-1", "meta": {"local_limit": 5}},
        {"node": "web-2", "meta": {"local_limit": 5}, "updated_at": ago(minutes=10)},
    )
    elect(operated.engine, "web-1")
    operated.pause_all_queues(node="web-9")
    return operated


STATES = [
    "STATE      JOBS  LAST MINUTE  LAST HOUR",
    "available     3",
    "scheduled     0",
    "suspended     0",
    "executing     0",
    "retryable     1",
    "completed     3            1          2",
    "discarded     1            0          1",
    "cancelled     0            0          0",
    "",
]
LINES = [
    "",
    "Due, but not made available yet: 1",
    "Nodes: 1 alive, 1 dead. Leader: web-1.",
    "Stored for all queues: paused on web-9.",
]


def test_a_wide_terminal_shows_everything(shop: SyncOban, terminals: Terminals) -> None:
    code, lines = terminals.run("stats", columns=120)
    assert code == 0
    assert lines == [
        *STATES,
        "QUEUE  STATUS   AVAILABLE  EXECUTING  OLDEST  SCHEDULED  RETRYABLE  NODES  LIMIT  SETTINGS"
        "  DISCARDED  COMPLETED",
        "mail   running          3          0   2h03m          0          0      1      5  -       "
        "          0          3",
        "media  idle             0          0       -          0          1      0      -  -       "
        "          1          0",
        *LINES,
    ]


def test_a_narrow_terminal_shows_what_matters_most(shop: SyncOban, terminals: Terminals) -> None:
    code, lines = terminals.run("stats", columns=60)
    assert code == 0
    assert lines == [
        *STATES,
        "QUEUE  STATUS   AVAILABLE  EXECUTING  OLDEST  SETTINGS",
        "mail   running          3          0   2h03m  -",
        "media  idle             0          0       -  -",
        *LINES,
    ]


def test_an_empty_instance_has_zeros(operated: SyncOban, terminals: Terminals) -> None:
    code, lines = terminals.run("stats", columns=60)
    assert code == 0
    assert lines[1] == "available     0"
    assert lines[-2:] == ["", "Nodes: 0 alive. Leader: none."]


def test_a_limit_of_counts_is_shown_with_a_plus(shop: SyncOban, terminals: Terminals) -> None:
    code, lines = terminals.run("stats", "--count-limit", "2", columns=60)
    assert code == 0
    assert [lines[1].split(), lines[11].split()[:3]] == [["available", "2+"], ["mail", "running", "2+"]]


def test_json_is_the_result_of_stats(shop: SyncOban) -> None:
    result = invoke("stats", "--json")
    found = TypeAdapter(DOCUMENTS["stats"]).validate_json(result.stdout)
    known = shop.stats()
    assert (found.counts, found.due, found.finished) == (known.counts, known.due, known.finished)
    assert [replace(queue, oldest_available_age=None) for queue in found.queues] == [
        replace(queue, oldest_available_age=None) for queue in known.queues
    ]
    assert [replace(node, heartbeat_age=0) for node in found.nodes] == [
        replace(node, heartbeat_age=0) for node in known.nodes
    ]
    assert (found.leader, found.settings) == ("web-1", known.settings)
