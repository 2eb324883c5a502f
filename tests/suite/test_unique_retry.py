"""A retry or an update that would break the uniqueness of a job is refused, and nothing else is judged."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from sqlalchemy import URL, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, JobUpdate, Oban, RetryOutcome, SyncOban
from oban.errors import UniqueConflict
from oban.repository import acknowledge, fetch, rescue, stage
from oban.repository.acknowledge import Ack
from oban.unique import Unique
from tests.support.internals import database_of
from tests.support.locks import waits_for_lock
from tests.support.rows import TABLE, delete_rows, insert_rows, lasting_url, read_rows, row
from tests.support.statements import recorded
from tests.support.waiting import eventually, within

BY_ALL = Unique()
OWNER = "5f3a8a52-3f0e-4f3b-9a67-1c8b7d1a2e01"


@pytest.fixture(scope="module", params=["sqlite", "asyncpg"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture(autouse=True)
async def emptied(oban: Oban) -> None:
    await delete_rows(oban.engine)


def unique(state: str, rule: Unique = BY_ALL, **columns: Any) -> dict[str, Any]:
    """A row of a unique job in some state."""
    made = row(state, **{"args": {"id": 1}, "inserted_at": datetime.now(UTC), **columns})
    return {"unique_key": rule.key(made), "unique_rule": rule.rule(), **made}


def plain(state: str) -> dict[str, Any]:
    """A row of a job that is not unique."""
    return {"unique_key": None, "unique_rule": None, **row(state)}


async def state_of(oban: Oban, id_: int) -> str:
    return str((await read_rows(oban.engine, [id_]))[id_]["state"])


# -- retry -------------------------------------------------------------------------------------


async def test_a_retry_with_another_job_in_the_way_changes_nothing_and_says_so(oban: Oban) -> None:
    old, other, ordinary = await insert_rows(
        oban.engine, unique("discarded"), unique("available"), plain("discarded")
    )
    before = await read_rows(oban.engine, [old])
    outcomes: list[RetryOutcome] = []
    assert await oban.retry_job(old, outcomes=outcomes) is False
    assert outcomes == [(old, "conflict", other)]
    assert await oban.retry_many_jobs([ordinary, old, other, 10**9, -1], outcomes=outcomes) == 1
    assert outcomes[1:] == [
        RetryOutcome(ordinary, "changed"),
        RetryOutcome(old, "conflict", other),
        RetryOutcome(other, "unchanged"),
        RetryOutcome(10**9, "missing"),
        RetryOutcome(-1, "missing"),
    ]
    assert await read_rows(oban.engine, [old]) == before


async def test_a_retry_goes_by_the_states_of_the_rule(oban: Oban) -> None:
    incomplete = Unique(states="incomplete")
    for rule, expected in ((BY_ALL, False), (incomplete, True)):
        await delete_rows(oban.engine)
        old, _ = await insert_rows(oban.engine, unique("discarded", rule), unique("completed", rule))
        assert await oban.retry_job(old) is expected
        assert await state_of(oban, old) == ("available" if expected else "discarded")


@pytest.mark.parametrize("timestamp", ["inserted_at", "scheduled_at"])
async def test_a_retry_goes_by_the_period_of_the_rule(
    oban: Oban, timestamp: Literal["inserted_at", "scheduled_at"]
) -> None:
    rule = Unique(period=60, timestamp=timestamp)
    times = {"inserted_at": datetime.now(UTC), "scheduled_at": datetime.now(UTC)}
    for age, expected in ((30, False), (90, True)):
        await delete_rows(oban.engine)
        ago = {timestamp: datetime.now(UTC) - timedelta(seconds=age)}
        old, other = await insert_rows(
            oban.engine, unique("discarded", rule), unique("available", rule, **times | ago)
        )
        outcomes: list[RetryOutcome] = []
        assert await oban.retry_job(old, outcomes=outcomes) is expected
        assert outcomes[0].other_id == (None if expected else other)


async def test_of_two_jobs_with_one_key_only_the_first_of_the_call_is_retried(oban: Oban) -> None:
    first, second = await insert_rows(oban.engine, unique("discarded"), unique("cancelled"))
    outcomes: list[RetryOutcome] = []
    assert await oban.retry_many_jobs([second, first, second], outcomes=outcomes) == 1
    assert outcomes == [(second, "changed", None), (first, "conflict", second)]
    assert await state_of(oban, first) == "discarded"
    assert await state_of(oban, second) == "available"


async def test_two_jobs_outside_of_each_others_period_are_both_retried(oban: Oban) -> None:
    rule = Unique(period=60)
    ago = datetime.now(UTC) - timedelta(hours=1)
    ids = await insert_rows(oban.engine, *[unique("discarded", rule, inserted_at=ago) for _ in range(2)])
    assert await oban.retry_many_jobs(ids) == 2


async def test_outcomes_of_a_statement_come_in_the_order_of_ids(oban: Oban) -> None:
    ids = await insert_rows(
        oban.engine, unique("discarded"), unique("cancelled"), plain("executing"), unique("discarded")
    )
    outcomes: list[RetryOutcome] = []
    statement = select(Job).order_by(Job.id.desc())
    assert await oban.retry_many_jobs(statement, everything=True, outcomes=outcomes) == 1
    assert outcomes == [
        (ids[0], "changed", None),
        (ids[1], "conflict", ids[0]),
        (ids[2], "unchanged", None),
        (ids[3], "conflict", ids[0]),
    ]


async def test_a_retry_in_another_queue_is_judged_by_the_new_key(oban: Oban) -> None:
    first, second, there = await insert_rows(
        oban.engine, unique("discarded"), unique("discarded", args={"id": 2}), unique("available", queue="b")
    )
    outcomes: list[RetryOutcome] = []
    assert await oban.retry_many_jobs([first, second], queue="b", outcomes=outcomes) == 1
    assert outcomes == [(first, "conflict", there), (second, "changed", None)]
    found = await read_rows(oban.engine, [first, second])
    assert found[first] == {
        **found[first],
        "queue": "default",
        "unique_key": unique("available")["unique_key"],
    }
    moved = unique("available", args={"id": 2}, queue="b")
    assert found[second] == {**found[second], "queue": "b", "unique_key": moved["unique_key"]}
    # In its old queue there is nothing in its way any more.
    assert await oban.retry_job(first, queue="c") is True


async def test_a_queue_that_is_not_compared_leaves_the_key_as_it_is(oban: Oban) -> None:
    rule = Unique(fields=["worker", "args"])
    (old,) = await insert_rows(oban.engine, unique("discarded", rule))
    assert await oban.retry_job(old, queue="b") is True
    assert (await read_rows(oban.engine, [old]))[old]["unique_key"] == unique("available", rule)["unique_key"]


@pytest.mark.parametrize("rule", [None, [], "rule", {"states": "nonsense", "fields": 7}, {"states": []}])
async def test_a_rule_that_cannot_be_read_never_fails_a_retry_or_an_update(oban: Oban, rule: Any) -> None:
    (old,) = await insert_rows(oban.engine, {**unique("discarded"), "unique_rule": rule})
    await oban.update_job(old, {"args": {"id": 2}})
    assert await oban.retry_job(old, queue="b") is True


async def test_jobs_without_keys_are_retried_with_as_many_statements_as_before(oban: Oban) -> None:
    (id_,) = await insert_rows(oban.engine, plain("discarded"))
    with recorded(oban.engine) as statements:
        assert await oban.retry_job(id_) is True
    counted = [each for each in statements if "pg_notify" not in each and not each.endswith("WHERE 0")]
    assert len(counted) == 2


async def test_the_caller_gets_the_outcomes_within_the_transaction(oban: Oban) -> None:
    old, other = await insert_rows(oban.engine, unique("discarded"), unique("available"))
    outcomes: list[RetryOutcome] = []
    async with AsyncSession(oban.engine) as session:
        assert await oban.retry_job(old, session, outcomes=outcomes) is False
        assert outcomes == [RetryOutcome(old, "conflict", other)]
        assert await oban.cancel_job(other, session) is True
        assert await oban.retry_job(old, session, outcomes=outcomes) is True
        assert outcomes[1:] == [RetryOutcome(old, "changed")]
        await session.rollback()
    assert await state_of(oban, old) == "discarded"


# -- update ------------------------------------------------------------------------------------


async def test_an_update_that_makes_a_duplicate_raises_before_any_row_changes(oban: Oban) -> None:
    first, second, third = await insert_rows(
        oban.engine, unique("available"), unique("scheduled", args={"id": 2}), plain("available")
    )
    before = await read_rows(oban.engine)
    changes: JobUpdate = {"args": {"id": 1}, "priority": 0}
    async with AsyncSession(oban.engine) as session:
        job = await session.get_one(Job, second)
        with pytest.raises(UniqueConflict) as raised:
            await oban.update_many_jobs([third, job], changes, session)
        assert raised.value.job_id == first
        assert (job.args, job.priority) == ({"id": 2}, 3)
        # The transaction goes on, and has changed nothing.
        await session.commit()
    assert await read_rows(oban.engine) == before


async def test_an_update_recomputes_the_key_of_what_is_compared(oban: Oban) -> None:
    (id_,) = await insert_rows(oban.engine, unique("available"))
    job = await oban.update_job(id_, lambda job: {"args": {"id": 2}, "queue": "b", "worker": "app.Other"})
    same = unique("available", args={"id": 2}, queue="b", worker="app.Other")
    assert (await read_rows(oban.engine, [id_]))[id_]["unique_key"] == job.unique_key == same["unique_key"]


async def test_changes_of_other_fields_are_never_judged(oban: Oban) -> None:
    rule = Unique(keys=["id"])
    # Another program has inserted a duplicate.
    first, second = await insert_rows(oban.engine, unique("available", rule), unique("available", rule))
    changes: JobUpdate = {
        "max_attempts": 7,
        "tags": ["a"],
        "priority": 1,
        "meta": {"a": 1},
        "schedule_in": 60,
    }
    with recorded(oban.engine) as statements:
        await oban.update_many_jobs([first, second], changes)
        await oban.update_many_jobs([first, second], {"args": {"id": 1, "note": "not compared"}})
    assert not [each for each in statements if "oban_unique_keys" in each]
    keys = {values["unique_key"] for values in (await read_rows(oban.engine)).values()}
    assert keys == {unique("available", rule)["unique_key"]}


async def test_two_jobs_cannot_get_the_same_key_in_one_call(oban: Oban) -> None:
    first, second = await insert_rows(
        oban.engine, unique("available", args={"id": 1}), unique("retryable", args={"id": 2})
    )
    with pytest.raises(UniqueConflict) as raised:
        await oban.update_many_jobs([second, first], {"args": {"id": 3}})
    assert raised.value.job_id == second


@pytest.mark.parametrize("state", ["completed", "discarded", "cancelled"])
async def test_a_job_that_has_ended_gets_its_new_key_unjudged_and_is_judged_by_a_retry(
    oban: Oban, state: str
) -> None:
    old, other = await insert_rows(oban.engine, unique(state, args={"id": 2}), unique("available"))
    await oban.update_job(old, {"args": {"id": 1}})
    assert (await read_rows(oban.engine, [old]))[old]["unique_key"] == unique("available")["unique_key"]
    outcomes: list[RetryOutcome] = []
    assert await oban.retry_job(old, outcomes=outcomes) is False
    assert outcomes == [RetryOutcome(old, "conflict", other)]


async def test_an_update_goes_by_the_states_and_the_period_of_the_rule(oban: Oban) -> None:
    rule = Unique(period=60, states="incomplete")
    ago = datetime.now(UTC) - timedelta(seconds=90)
    first, _, _ = await insert_rows(
        oban.engine,
        unique("available", rule, args={"id": 1}),
        unique("completed", rule, args={"id": 2}),
        unique("available", rule, args={"id": 3}, inserted_at=ago),
    )
    for number in (2, 3):
        await oban.update_job(first, {"args": {"id": number}})


async def test_what_attempts_have_written_to_meta_is_not_compared(oban: Oban) -> None:
    rule = Unique(fields=["worker", "queue", "meta"])
    meta = {"recorded": True, "return": "AA==", "snoozed": 2, "rescued": 1, "tenant": 7}
    key = unique("available", rule, meta={"tenant": 7}, queue="b")["unique_key"]
    (id_,) = await insert_rows(oban.engine, unique("completed", rule, meta=meta))
    await oban.update_job(id_, {"queue": "b"})
    assert (await read_rows(oban.engine, [id_]))[id_]["unique_key"] == key


async def test_only_the_progress_of_attempts_is_left_out_of_the_comparison(oban: Oban) -> None:
    rule = Unique(fields=["worker", "queue", "meta"])
    progress = {"attempt": 1, "done": 1, "total": None, "message": None, "at": "2030-01-01T00:00:00+00:00"}
    own = {"progress": "half"}
    reported, other = await insert_rows(
        oban.engine,
        unique("completed", rule, meta={"progress": progress}),
        unique("completed", rule, meta={"progress": "none"}),
    )
    await oban.update_job(reported, {"queue": "b"})
    await oban.update_job(other, {"meta": own})
    rows = await read_rows(oban.engine, [reported, other])
    keys = unique("available", rule, meta={}, queue="b"), unique("available", rule, meta=own)
    assert [rows[id_]["unique_key"] for id_ in (reported, other)] == [key["unique_key"] for key in keys]


# -- everything else ---------------------------------------------------------------------------


async def test_cancel_and_delete_never_judge(oban: Oban) -> None:
    ids = await insert_rows(oban.engine, *[unique("available") for _ in range(4)])
    with recorded(oban.engine) as statements:
        assert await oban.cancel_many_jobs(ids[:2]) == 2
        assert await oban.delete_many_jobs(ids) == 4
    assert not [each for each in statements if "oban_unique_keys" in each]


async def test_what_a_node_does_on_its_own_never_judges(oban: Oban) -> None:
    # Duplicates of each other in all states that a node moves jobs out of, such as other programs may insert.
    past = datetime.now(UTC) - timedelta(hours=3)
    states = ("available", "scheduled", "retryable", "executing")
    await insert_rows(
        oban.engine,
        *[
            unique(state, scheduled_at=past, attempted_at=past if state == "executing" else None)
            for state in states
        ],
    )
    write = database_of(oban).write
    with recorded(oban.engine) as statements:
        assert await write(stage.stage) == 2
        assert len(await write(rescue.rescue, 60.0, 3600.0)) == 1
        jobs = await write(fetch.fetch, "default", 10, "node", OWNER)
        assert len(jobs) == 4
        endings = [("completed", None), ("failed", 0.0), ("snoozed", 0.0), ("cancelled", None)]
        acks = [
            Ack(job.id, job.attempt, OWNER, outcome, delay=delay)
            for job, (outcome, delay) in zip(jobs, endings, strict=True)
        ]
        assert await write(acknowledge.acknowledge, acks) == {job.id for job in jobs}
        assert await write(stage.stage) == 2
    assert not [each for each in statements if "oban_unique_keys" in each]
    counts = (await oban.count_jobs())["default"]
    assert (counts["available"], counts["completed"], counts["cancelled"]) == (2, 1, 1)


def test_a_sync_client_returns_the_same_outcomes(url: URL) -> None:
    driver = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}[url.get_backend_name()]
    with SyncOban(url.set(drivername=driver)) as client:
        with client.engine.begin() as connection:
            statement = TABLE.insert().returning(TABLE.c.id)
            ids = [
                connection.execute(statement, made).scalar_one()
                for made in (unique("discarded"), unique("available"), unique("discarded", args={"id": 2}))
            ]
        outcomes: list[RetryOutcome] = []
        assert client.retry_job(ids[0], outcomes=outcomes) is False
        assert client.retry_many_jobs(ids[1:], outcomes=outcomes) == 1
        assert outcomes == [
            (ids[0], "conflict", ids[1]),
            (ids[1], "unchanged", None),
            (ids[2], "changed", None),
        ]
        with pytest.raises(UniqueConflict):
            client.update_job(ids[2], {"args": {"id": 1}})


# -- races -------------------------------------------------------------------------------------


async def test_of_retries_at_the_same_time_one_wins(oban: Oban) -> None:
    for number in range(5):
        made = [unique("discarded", args={"id": number}) for _ in range(4)]
        ids = await insert_rows(oban.engine, *made)
        changed = await asyncio.gather(*(oban.retry_job(id_) for id_ in ids))
        assert sorted(changed) == [False, False, False, True]


async def test_of_retries_and_inserts_at_the_same_time_one_wins(oban: Oban) -> None:
    for number in range(4):
        (id_,) = await insert_rows(oban.engine, unique("discarded", args={"id": number}))

        async def inserted(number: int = number) -> bool:
            job = Job(worker="tests.Nobody", args={"id": number}, unique=BY_ALL)
            return not (await oban.enqueue(job)).conflict

        won = await asyncio.gather(*(oban.retry_job(id_) if n % 2 else inserted() for n in range(8)))
        assert won.count(True) == 1


@pytest.mark.parametrize("url", ["asyncpg"], indirect=True)
async def test_a_retry_waits_for_an_insert_that_has_claimed_its_key(oban: Oban) -> None:
    (old,) = await insert_rows(oban.engine, unique("discarded"))
    outcomes: list[RetryOutcome] = []
    async with AsyncSession(oban.engine) as session:
        other = await oban.enqueue(Job(worker="tests.Nobody", args={"id": 1}, unique=BY_ALL), session=session)
        other_id = other.id
        retrying = asyncio.create_task(oban.retry_job(old, outcomes=outcomes))
        await eventually(lambda: waits_for_lock(oban.engine))
        await session.commit()
        assert await within(retrying) is False
    assert outcomes == [RetryOutcome(old, "conflict", other_id)]


@pytest.mark.parametrize("url", ["asyncpg"], indirect=True)
async def test_an_update_waits_for_an_insert_that_has_claimed_its_new_key(oban: Oban) -> None:
    (id_,) = await insert_rows(oban.engine, unique("available", args={"id": 2}))
    async with AsyncSession(oban.engine) as session:
        other = await oban.enqueue(Job(worker="tests.Nobody", args={"id": 1}, unique=BY_ALL), session=session)
        other_id = other.id
        updating = asyncio.create_task(oban.update_job(id_, {"args": {"id": 1}}))
        await eventually(lambda: waits_for_lock(oban.engine))
        await session.commit()
        with pytest.raises(UniqueConflict) as raised:
            await within(updating)
    assert raised.value.job_id == other_id


async def test_retries_in_opposite_order_do_not_deadlock(oban: Oban) -> None:
    numbers = list(range(30))
    ids = await insert_rows(oban.engine, *[unique("discarded", args={"id": number}) for number in numbers])
    for _ in range(3):
        async with oban.engine.begin() as connection:
            await connection.execute(update(TABLE).values(state="discarded"))
        orders = [ids, ids[::-1], ids[15:] + ids[:15], ids]
        counts = await asyncio.gather(*(oban.retry_many_jobs(order) for order in orders))
        assert sum(counts) == len(ids)
    if oban.engine.dialect.name == "postgresql":
        async with oban.engine.connect() as connection:
            query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            assert (await connection.execute(text(query))).scalar_one() == 0
