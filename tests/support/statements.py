"""Records the SQL that an engine sends."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine


@contextmanager
def recorded(engine: Engine | AsyncEngine) -> Iterator[list[str]]:
    """The statements that are executed inside the block, in order, with white space folded."""
    seen: list[str] = []
    target = engine.sync_engine if isinstance(engine, AsyncEngine) else engine

    def record(_: Any, __: Any, statement: str, *___: Any) -> None:
        seen.append(" ".join(statement.split()))

    event.listen(target, "before_cursor_execute", record)
    try:
        yield seen
    finally:
        event.remove(target, "before_cursor_execute", record)


def record_trips(patch: pytest.MonkeyPatch) -> list[object]:
    """The functions that aiosqlite runs on the threads of its connections from now on."""
    execute: Any = aiosqlite.Connection._execute
    trips: list[object] = []

    async def record(connection: aiosqlite.Connection, function: Any, *args: Any, **options: Any) -> Any:
        trips.append(function)
        return await execute(connection, function, *args, **options)

    patch.setattr(aiosqlite.Connection, "_execute", record)
    return trips
