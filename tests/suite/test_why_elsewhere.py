"""`why` explains rows that only another program writes, and jobs in another schema."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import URL, select

from oban import Job, Oban, migration
from tests.support.explaining import Explained, now, scene


async def test_the_commands_name_the_schema(server_url: URL) -> None:
    migration.upgrade(server_url, prefix="private")
    async with Oban(server_url, prefix="private") as oban:
        job = await oban.enqueue(Explained.new(schedule_in=60))
        commands = [reason.commands for reason in (await oban.why(job)).reasons]
        (missing,) = (await oban.why(job.id + 1)).reasons
        _, no_node = (await oban.why(job)).reasons
    hint = "Other tables of Oban, with jobs and nodes of their own, are in: public."
    assert hint in missing.text
    assert no_node.text.endswith(hint)
    assert commands == [
        (f"oban jobs retry {job.id} --prefix private",),
        ("oban start --queues mail:10 --prefix private",),
    ]
    assert f"the newest job of this schema private is {job.id}." in missing.text


def stored_values(id_: int, **values: Any) -> str:
    """SQL that stores what no `Job` can have."""
    changes = ", ".join(f"{column} = {value}" for column, value in values.items())
    return f"UPDATE oban_jobs SET {changes} WHERE id = {id_}"


BAD_ROWS: dict[str, tuple[dict[str, str], list[str], str]] = {
    "numbers": (
        {"attempt": "'none'", "priority": "'x'"},
        ["bad_row", "no_node"],
        "another program has stored values that Oban does not: attempt is 'none'; priority is 'x'.",
    ),
    "documents": (
        {"args": "'{'", "errors": "'?'"},
        ["bad_row", "no_node"],
        "args is not JSON; errors is not JSON.",
    ),
    "times": ({"scheduled_at": "'soon'"}, ["bad_row", "no_node"], "scheduled_at is not a time."),
    "bytes": (
        {"queue": "x'ff'", "worker": "x'00'"},
        ["bad_row", "no_node"],
        r"queue is b'\xff'; worker is b'\x00'.",
    ),
    "a state": ({"state": "'waiting'"}, ["unknown_state"], "the state waiting, which Oban does not have."),
    "a state and a number": (
        {"state": "'waiting'", "attempt": "'a'"},
        ["unknown_state", "bad_row"],
        "attempt is 'a'.",
    ),
    "executing": (
        {"state": "'executing'", "attempted_by": "'?'", "attempted_at": "'?'", "meta": "'?'"},
        ["no_leader", "bad_row", "node_unknown"],
        "meta is not JSON; attempted_by is not JSON.",
    ),
}


@pytest.mark.parametrize("name", BAD_ROWS)
async def test_a_row_that_only_another_program_writes_is_explained(sqlite_url: URL, name: str) -> None:
    values, codes, expected = BAD_ROWS[name]
    async with Oban(sqlite_url) as oban, scene(oban, sqlite_url) as stage:
        job_id = await stage.job()
        async with oban.engine.begin() as connection:
            await connection.exec_driver_sql("PRAGMA ignore_check_constraints = on")
            await connection.exec_driver_sql(stored_values(job_id, **values))
        explanation = await stage.why(job_id)
    assert sorted(reason.code for reason in explanation.reasons) == sorted(codes)
    assert expected.lower() in str(explanation).lower()
    assert not explanation.runs


@pytest.mark.parametrize("state", ["available", "scheduled"])
async def test_a_transaction_that_has_locked_the_row_is_named(server_url: URL, state: str) -> None:
    async with Oban(server_url) as oban, scene(oban, server_url) as stage:
        job_id = await stage.job(state, scheduled_at=now() - timedelta(minutes=5))
        async with oban.engine.connect() as connection:
            pid = (await connection.exec_driver_sql("SELECT pg_backend_pid()")).scalar()
            locks = select(Job.id).where(Job.id == job_id).with_for_update()
            await connection.execute(locks)
            await stage.node()
            locked, other = (await stage.why(job_id)).reasons
            assert (locked.code, other.code[:4]) == ("locked", "not_")
            assert f"the nodes skip it until that ends: process {pid} (role " in locked.text
            assert "idle in transaction), whose transaction began " in locked.text
            assert locked.advice.endswith(f"with the SQL: SELECT pg_terminate_backend({pid})")
            # In the transaction that has the lock, it is no obstacle.
            own = await oban.why(job_id, session=connection)
            assert [reason.code for reason in own.reasons] == [other.code]
        await stage.runs(job_id)
