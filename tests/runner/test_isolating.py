"""An outcome that is stored by itself is replaced only where what it says is the cause of the failure."""

import itertools
from collections.abc import Callable
from typing import Any, cast

import pytest
from sqlalchemy.exc import DBAPIError

from oban import clock, dialects
from oban.errors import SchemaMissing
from oban.repository.execution import Ack
from oban.repository.transaction import Database
from oban.runner.acknowledger import TRIES, Acknowledger

ACK = Ack(1, 1, "owner", "failed", error="what the job said", delay=15.0)


class Said(Exception):
    """What a driver raises for an error that the server reports."""

    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


class Refusing:
    """A database that refuses to store anything, or what `refuses` says, and keeps what it stores."""

    dialect = dialects.named("postgresql")

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.refuses: Callable[[Ack], bool] = lambda ack: True
        self.stored: list[Ack] = []

    async def write(self, _: Any, acks: list[Ack]) -> None:
        if any(map(self.refuses, acks)):
            raise self.error
        self.stored += acks


class Leaping(clock.Clock):
    """Each look at the monotonic clock finds it an hour later."""

    _hours = itertools.count(1)

    def monotonic(self) -> float:
        return next(self._hours) * 3600.0


async def tried(database: Refusing, times: int) -> Acknowledger:
    """Try to store an outcome by itself so many times."""
    acknowledger = Acknowledger(cast(Database, database))
    with clock.use(Leaping()):
        try:
            await acknowledger.isolate([ACK])
        except DBAPIError:
            assert database.dialect.is_connection_error(database.error)
        for _ in range(times - 1):
            try:
                await acknowledger.try_refused()
            except DBAPIError:
                assert database.dialect.is_connection_error(database.error)
    return acknowledger


def said(sqlstate: str) -> DBAPIError:
    return DBAPIError("UPDATE …", {}, Said(sqlstate))


@pytest.mark.parametrize(
    "error",
    [
        # Canceled, shut down, read-only, full, I/O error, lock timeout, serialization, lost statement.
        *(said(state) for state in ["57014", "57P01", "25006", "53100", "58030", "55P03", "40001", "26000"]),
        # No right, no table, a trigger that raises, and what nobody expects: of every outcome alike.
        *(said(state) for state in ["42501", "P0001"]),
        *(SchemaMissing("no tables"), RuntimeError("the handler is closed")),
    ],
    ids=lambda error: getattr(getattr(error, "orig", None), "sqlstate", type(error).__name__),
)
async def test_an_outcome_is_kept_as_it_is_while_nothing_can_be_stored(error: Exception) -> None:
    database = Refusing(error)
    acknowledger = await tried(database, 3 * TRIES)
    assert (list(acknowledger), database.stored) == ([ACK], [])
    database.refuses = lambda ack: False
    with clock.use(Leaping()):
        await acknowledger.try_refused()
    assert (list(acknowledger), database.stored) == ([], [ACK])


@pytest.mark.parametrize("sqlstate", ["57014", "55P03", "40001", "40P01", "26000"])
async def test_an_outcome_is_not_replaced_for_what_will_pass(sqlstate: str) -> None:
    database = Refusing(said(sqlstate))
    database.refuses = lambda ack: ack == ACK
    acknowledger = await tried(database, 3 * TRIES)
    assert (list(acknowledger), database.stored) == ([ACK], [])


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (said("22P05"), 1),
        (TypeError("Integer exceeds 64-bit range"), 1),
        (said("P0001"), TRIES + 1),
        (RuntimeError("nobody knows"), TRIES + 1),
    ],
)
async def test_what_it_says_is_replaced_where_that_is_refused(error: Exception, tries: int) -> None:
    database = Refusing(error)
    database.refuses = lambda ack: ack == ACK
    assert list(await tried(database, tries - 1 or 1)) == ([ACK] if tries > 1 else [])
    assert list(await tried(database, tries)) == []
    stored = database.stored[-1]
    assert stored[:4] == ACK[:4]
    assert "could not be stored" in str(stored.error)
