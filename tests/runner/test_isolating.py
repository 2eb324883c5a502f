"""An outcome that cannot be stored is replaced only if its own content is the cause."""

import itertools
from collections.abc import Callable
from typing import Any, cast

import pytest
from sqlalchemy.exc import DBAPIError, InternalError

from oban import clock, dialects
from oban.database.aio import Database
from oban.errors import SchemaMissing
from oban.repository.acknowledge import Ack
from oban.runner.execution.acknowledger import TRIES, Acknowledger
from tests.support.internals import refused_by

ACK = Ack(1, 1, "owner", "failed", error="what the job said", delay=15.0)


class ServerError(Exception):
    """The exception of a driver for an error that the server reports."""

    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


class Refusing:
    """A database that refuses outcomes for which `refuses` is true, and records those that it stores."""

    dialect = dialects.by_name("postgresql")

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.refuses: Callable[[Ack], bool] = lambda ack: True
        self.stored: list[Ack] = []

    async def write(self, _: Any, acks: list[Ack]) -> None:
        if any(map(self.refuses, acks)):
            raise self.error
        self.stored += acks


class Leaping(clock.Clock):
    """Each reading of the monotonic clock is an hour later."""

    _hours = itertools.count(1)

    def monotonic(self) -> float:
        return next(self._hours) * 3600.0


class Manual(clock.Clock):
    """The test moves the monotonic clock."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


async def again(acknowledger: Acknowledger) -> None:
    """Store the pending outcomes as a producer does."""
    await acknowledger.retry_refused()
    if acks := acknowledger.take():
        await acknowledger.isolate(acks)


async def tried(database: Refusing, times: int) -> Acknowledger:
    """Try this many times to store an outcome on its own."""
    acknowledger = Acknowledger(cast(Database, database))
    with clock.use(Leaping()):
        try:
            await acknowledger.isolate([ACK])
        except DBAPIError:
            assert database.dialect.is_connection_error(database.error)
        for _ in range(times - 1):
            try:
                await again(acknowledger)
            except DBAPIError:
                assert database.dialect.is_connection_error(database.error)
    return acknowledger


def server_error(sqlstate: str) -> DBAPIError:
    return DBAPIError("UPDATE …", {}, ServerError(sqlstate))


@pytest.mark.parametrize(
    "error",
    [
        # Cancelled, shut down, read-only, disk full, I/O error, lock timeout, serialization, lost statement.
        *(
            server_error(state)
            for state in ["57014", "57P01", "25006", "53100", "58030", "55P03", "40001", "26000"]
        ),
        # No permission, no table, a trigger that raises, an unexpected error: each concerns every outcome.
        *(server_error(state) for state in ["42501", "P0001"]),
        *(SchemaMissing("no tables"), RuntimeError("the handler is closed")),
    ],
    ids=lambda error: getattr(getattr(error, "orig", None), "sqlstate", type(error).__name__),
)
async def test_an_outcome_is_not_replaced_while_nothing_can_be_stored(error: Exception) -> None:
    database = Refusing(error)
    acknowledger = await tried(database, 3 * TRIES)
    assert (list(acknowledger), database.stored) == ([ACK], [])
    database.refuses = lambda ack: False
    with clock.use(Leaping()):
        await again(acknowledger)
    assert (list(acknowledger), database.stored) == ([], [ACK])


@pytest.mark.parametrize("sqlstate", ["57014", "55P03", "40001", "40P01", "26000"])
async def test_an_outcome_is_not_replaced_after_a_temporary_error(sqlstate: str) -> None:
    database = Refusing(server_error(sqlstate))
    database.refuses = lambda ack: ack == ACK
    acknowledger = await tried(database, 3 * TRIES)
    assert (list(acknowledger), database.stored) == ([ACK], [])


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (server_error("22P05"), 1),
        (TypeError("Integer exceeds 64-bit range"), 1),
        (server_error("P0001"), TRIES + 1),
        (RuntimeError("nobody knows"), TRIES + 1),
    ],
)
async def test_an_outcome_whose_content_is_refused_is_replaced_and_logged(
    error: Exception, tries: int, caplog: pytest.LogCaptureFixture
) -> None:
    database = Refusing(error)
    database.refuses = lambda ack: ack == ACK
    assert list(await tried(database, tries - 1 or 1)) == ([ACK] if tries > 1 else [])
    caplog.clear()
    assert list(await tried(database, tries)) == []
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "job 1, attempt 1: its outcome, failed, was stored without its value or text, which the database"
        " refused: "
    )
    assert (record.levelname, record.__dict__["job_id"]) == ("ERROR", 1)
    stored = database.stored[-1]
    assert stored[:4] == ACK[:4]
    assert "could not be stored" in str(stored.error)


BASE = Ack(1, 1, "owner", "completed")
REASON = "the outcome could not be stored: ServerError"
DONE = f"the job was completed, but {REASON}"


@pytest.mark.parametrize(
    ("changes", "refuses", "stored"),
    [
        ({"value": "1"}, "value", ("completed", DONE, None)),
        ({"value": "1"}, "value error", ("completed", None, None)),
        ({"outcome": "snoozed", "snoozed": 1, "delay": 9}, "snoozed", ("snoozed", REASON, 9)),
        ({"outcome": "cancelled", "error": "bad"}, "=bad", ("cancelled", REASON, None)),
        ({"outcome": "discarded", "error": "bad"}, "error", ("discarded", None, None)),
        ({"outcome": "failed", "error": "bad", "delay": 9}, "=bad", ("failed", REASON, 9)),
        ({"value": "1"}, "=completed", ("failed", DONE, 15)),
        ({}, "=completed", ("failed", DONE, 15)),
        ({"outcome": "cancelled", "error": "bad"}, "=cancelled", ("failed", REASON, 15)),
    ],
)
async def test_as_much_of_an_outcome_is_stored_as_the_database_accepts(
    changes: dict[str, Any], refuses: str, stored: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    ack = BASE._replace(**changes)
    database = Refusing(server_error("22P05"))

    def refused(ack: Ack) -> bool:
        if refuses.startswith("="):
            return refuses[1:] in (ack.error, ack.outcome)
        return any(getattr(ack, field) is not None for field in refuses.split())

    database.refuses = refused
    acknowledger = Acknowledger(cast(Database, database))
    await acknowledger.isolate([ack])
    assert list(acknowledger) == []
    (found,) = database.stored
    outcome, reason, delay = stored
    assert found == Ack(*ack[:3], outcome, error=reason, delay=delay)
    (record,) = caplog.records
    assert ("failed, attempt" in record.getMessage()) == (outcome != ack.outcome)


ACKS = [Ack(number, 1, "owner", "completed") for number in range(1, 101)]


class Slow(Refusing):
    """Takes too long to store more than a few outcomes at once."""

    def __init__(self, most: int) -> None:
        super().__init__(TimeoutError())
        self.most = most
        self.tries = 0

    async def write(self, _: Any, acks: list[Ack]) -> None:
        self.tries += 1
        if len(acks) > self.most:
            raise self.error
        self.stored += acks


@pytest.mark.parametrize("most", [1, 7, 99])
async def test_a_batch_that_takes_too_long_is_stored_in_smaller_ones(most: int) -> None:
    database = Slow(most)
    acknowledger = Acknowledger(cast(Database, database))
    for ack in ACKS:
        acknowledger.add(ack)
    while taken := acknowledger.take():
        try:
            await database.write(None, taken)
        except TimeoutError:
            acknowledger.put_back(taken)
    assert database.stored == ACKS
    assert database.tries < 2.5 * len(ACKS) / most + 10


async def test_outcomes_that_were_not_tried_when_the_connection_broke_go_together_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = Refusing(server_error("P0001"))
    database.refuses = lambda ack: ack.id == 1
    write = database.write
    calls = itertools.count()

    async def cut(function: Any, acks: list[Ack]) -> None:
        # By then, all of the left half but the first one are stored.
        if acks[0].id == 2 or next(calls) > 20:
            raise server_error("08006")
        await write(function, acks)

    monkeypatch.setattr(database, "write", cut)
    acknowledger = Acknowledger(cast(Database, database))
    with pytest.raises(DBAPIError):
        await acknowledger.isolate(ACKS)
    assert sorted(acknowledger) == ACKS
    assert [ack.id for ack in refused_by(acknowledger)] == [1]
    monkeypatch.undo()
    with clock.use(Leaping()):
        while acks := acknowledger.take():
            await database.write(None, acks)
    assert sorted(database.stored) == ACKS[1:]


async def test_one_refused_outcome_of_many_takes_few_statements_to_find(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = Refusing(server_error("P0001"))
    database.refuses = lambda ack: ack.id == 42
    write = database.write
    sizes: list[int] = []

    async def counted(function: Any, acks: list[Ack]) -> None:
        sizes.append(len(acks))
        await write(function, acks)

    monkeypatch.setattr(database, "write", counted)
    acknowledger = Acknowledger(cast(Database, database))
    await acknowledger.isolate(ACKS)
    assert len(database.stored) == 99
    assert [ack.id for ack in acknowledger] == [42]
    assert len(sizes) <= 16


def test_one_statement_stores_no_more_than_fits_into_a_message() -> None:
    acknowledger = Acknowledger(cast(Database, Refusing(TimeoutError())))
    for ack in ACKS:
        acknowledger.add(ack._replace(value="x" * 4_000_000))
    assert [len(acknowledger.take()) for _ in range(3)] == [4, 4, 4]
    assert acknowledger.is_full
    while acknowledger.take():
        pass
    assert not acknowledger.is_full


def test_a_connection_that_the_driver_considers_busy_counts_as_lost() -> None:
    busy = Exception("cannot switch to state 12; another operation (2) is in progress")
    assert dialects.by_name("postgresql").is_connection_error(InternalError("SELECT 1", {}, busy))
    assert not dialects.by_name("postgresql").is_connection_error(
        InternalError("SELECT 1", {}, ServerError("XX000"))
    )


async def test_an_outcome_waits_no_longer_because_others_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Refusing(server_error("P0001"))
    never, late = ACK, ACK._replace(id=2)
    database.refuses = lambda ack: ack.id == never.id or ack == late
    acknowledger = Acknowledger(cast(Database, database))
    with clock.use(Manual()):
        await acknowledger.isolate([never])
        for second in range(300):
            monkeypatch.setattr(Manual, "seconds", float(second))
            await acknowledger.retry_refused()
        await acknowledger.isolate([late])
        for tenth in range(20):
            monkeypatch.setattr(Manual, "seconds", 300 + tenth / 10)
            await acknowledger.retry_refused()
    assert refused_by(acknowledger) == [never]
    assert [ack.id for ack in database.stored] == [2]
