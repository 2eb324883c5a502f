"""Writes the rows of nodes, as their heartbeats would leave them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, insert

from oban.models import Leader, Producer


def ago(**units: float) -> datetime:
    return datetime.now(UTC) - timedelta(**units)


def send_heartbeats(engine: Engine, *producers: dict[str, Any], age: float = 2) -> None:
    """Insert a row for each of these producers, by default one of the queue "mail" on the node "n1"."""

    def values(number: int, producer: dict[str, Any]) -> dict[str, Any]:
        common = {"uuid": UUID(int=number), "name": "Oban", "node": "n1", "queue": "mail", "meta": {}}
        return {**common, "started_at": ago(minutes=5), "updated_at": ago(seconds=age), **producer}

    with engine.begin() as connection:
        connection.execute(insert(Producer), [values(*item) for item in enumerate(producers)])


def elect(engine: Engine, node: str, name: str = "Oban") -> None:
    """Make a node the leader of an instance for a minute."""
    values = {"name": name, "node": f"{node}/{UUID(int=7)}", "elected_at": ago(minutes=1)}
    with engine.begin() as connection:
        connection.execute(insert(Leader), [{**values, "expires_at": ago(minutes=-1)}])
