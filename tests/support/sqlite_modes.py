"""The ways in which an application can let the sqlite3 driver begin transactions."""

import sys
from typing import Any

import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

#: Whether the driver has the argument `autocommit`.
HAS_AUTOCOMMIT = sys.version_info >= (3, 12)

#: The driver is in a transaction before the first statement that writes.
EARLY = [
    pytest.param(
        "autocommit=False", marks=pytest.mark.skipif(not HAS_AUTOCOMMIT, reason="needs Python 3.12")
    ),
    "BEGIN",
]
#: As above; in the second one, each transaction takes the write lock at once.
MODES = [*EARLY, "BEGIN IMMEDIATE", "isolation_level=IMMEDIATE", "isolation_level=EXCLUSIVE", "default"]


def sync_engine(url: URL, mode: str) -> Engine:
    """An engine with transactions in one of the `MODES`."""
    engine = create_engine(url.set(drivername="sqlite+pysqlite"), connect_args=_arguments(mode))
    _listen(engine, mode)
    return engine


def async_engine(url: URL, mode: str) -> AsyncEngine:
    """The same for asyncio."""
    engine = create_async_engine(url.set(drivername="sqlite+aiosqlite"), connect_args=_arguments(mode))
    _listen(engine.sync_engine, mode)
    return engine


def _arguments(mode: str) -> dict[str, Any]:
    name, _, value = mode.partition("=")
    return {name: False if value == "False" else value} if value else {}


def _listen(engine: Engine, mode: str) -> None:
    if not mode.startswith("BEGIN"):
        return

    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = None

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(mode)

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
