"""Writes the rows of nodes, as their heartbeats would leave them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, Insert, insert

from oban.models import Leader, Producer


def ago(**units: float) -> datetime:
    return datetime.now(UTC) - timedelta(**units)


def producer_rows(*producers: dict[str, Any], age: float = 2) -> list[dict[str, Any]]:
    """A row for each of these producers, by default one of the queue "mail" on the node "n1"."""

    def values(number: int, producer: dict[str, Any]) -> dict[str, Any]:
        common = {"uuid": UUID(int=number), "name": "Oban", "node": "n1", "queue": "mail", "meta": {}}
        return {**common, "started_at": ago(minutes=5), "updated_at": ago(seconds=age), **producer}

    return [values(*item) for item in enumerate(producers)]


def send_heartbeats(engine: Engine, *producers: dict[str, Any], age: float = 2) -> None:
    """Insert a row for each of these producers, as `producer_rows` makes them."""
    with engine.begin() as connection:
        connection.execute(insert(Producer), producer_rows(*producers, age=age))


def leader_row(node: str, name: str = "Oban") -> Insert:
    """A statement that makes a node the leader of an instance for a minute."""
    values = {"name": name, "node": f"{node}/{UUID(int=7)}", "elected_at": ago(minutes=1)}
    return insert(Leader).values(**values, expires_at=ago(minutes=-1))


def elect(engine: Engine, node: str, name: str = "Oban") -> None:
    """Make a node the leader of an instance for a minute."""
    with engine.begin() as connection:
        connection.execute(leader_row(node, name))
