"""`oban nodes`: the nodes of an instance are listed in a terminal, as of their last heartbeats."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter

from oban import SyncOban
from oban.cli.documents import DOCUMENTS
from tests.support.commands import invoke
from tests.support.heartbeats import elect, send_heartbeats
from tests.support.terminal import Terminals

pytestmark = pytest.mark.either_database


def facts(seen: datetime, pid: int, *, clock: float = 0, hears: bool = True, **more: Any) -> dict[str, Any]:
    """The `meta` of a node that sent a heartbeat at `seen`, and whose clock is ahead by some seconds."""
    return {
        "local_limit": 5,
        "running": [1, 2],
        "version": "0.1.0",
        "pid": pid,
        "clock": (seen + timedelta(seconds=clock)).isoformat(),
        "listener": {"kind": "listen", "hears": hears},
        "lease": 86_400,
        **more,
    }


@pytest.fixture
def shop(operated: SyncOban) -> SyncOban:
    """A client of an instance with a leader, a node with faults, a dead one, and one that tells nothing."""
    seen = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2, minutes=3, seconds=5)
    faulty = facts(seen, 72, clock=90.25, hears=False)
    send_heartbeats(
        operated.engine,
        {"node": "web-1", "meta": facts(seen, 71), "updated_at": seen},
        {"node": "web-1", "queue": "media", "meta": facts(seen, 71, paused=True), "updated_at": seen},
        {"node": "web-2", "meta": faulty, "updated_at": seen},
        {"node": "web-3", "meta": facts(seen, 73, lease=60), "updated_at": seen},
        {"node": "web-4", "meta": {"lease": 86_400}, "updated_at": seen},
    )
    elect(operated.engine, "web-1")
    return operated


def test_a_wide_terminal_shows_all_columns(shop: SyncOban, terminals: Terminals) -> None:
    code, lines = terminals.run("nodes", columns=120)
    assert code == 0
    assert lines == [
        "NODE   STATUS  HEARTBEAT  RUNNING  QUEUES                 CLOCK  LISTENER  VERSION  PID",
        "web-1  leader      2h03m        4  mail 5, media paused   +0.0s  listen    0.1.0     71",
        "web-2  alive       2h03m        2  mail 5                +90.2s  deaf      0.1.0     72",
        "web-3  dead        2h03m        2  mail 5                 +0.0s  listen    0.1.0     73",
        "web-4  alive       2h03m        0  mail ?                     -  -         -          -",
    ]


def test_a_narrow_terminal_shows_what_matters_most(shop: SyncOban, terminals: Terminals) -> None:
    code, lines = terminals.run("nodes", columns=60)
    assert code == 0
    assert lines == [
        "NODE   STATUS  HEARTBEAT  RUNNING  QUEUES",
        "web-1  leader      2h03m        4  mail 5, media paused",
        "web-2  alive       2h03m        2  mail 5",
        "web-3  dead        2h03m        2  mail 5",
        "web-4  alive       2h03m        0  mail ?",
    ]


def test_an_instance_without_nodes_says_so(operated: SyncOban, terminals: Terminals) -> None:
    code, lines = terminals.run("nodes", "--name", "shop")
    assert (code, lines) == (0, ["No node of the instance shop runs queues: start one with `oban start`."])


def test_json_has_all_that_is_known_about_a_node(shop: SyncOban) -> None:
    result = invoke("nodes", "--json")
    nodes = TypeAdapter(DOCUMENTS["nodes"]).validate_json(result.stdout)
    assert [replace(node, heartbeat_age=0) for node in nodes] == [
        replace(node, heartbeat_age=0) for node in shop.list_nodes()
    ]
    assert [(node.leader, node.alive, node.pid) for node in nodes] == [
        (True, True, 71),
        (False, True, 72),
        (False, False, 73),
        (False, True, None),
    ]
