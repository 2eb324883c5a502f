"""Counts how often asyncpg asks the server about a type that it does not know."""

import pytest
from asyncpg.connection import Connection  # type: ignore[import-untyped]


def record_introspections(patch: pytest.MonkeyPatch) -> list[list[int]]:
    """The oids of the types that each query about types is for, on any connection, from now on."""
    introspect, recorded = Connection._introspect_types, list[list[int]]()

    async def record(connection: Connection, oids: list[int], timeout: float | None) -> object:
        recorded.append([*oids])
        return await introspect(connection, oids, timeout)

    patch.setattr(Connection, "_introspect_types", record)
    return recorded
