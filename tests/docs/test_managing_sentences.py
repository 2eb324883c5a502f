"""Sentences of `docs/guides/managing_jobs.md` about rows, each with an assertion that it holds."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import URL

from oban import Oban, ObanError
from oban.errors import InvalidJob
from tests.docs.stage import Page
from tests.support.rows import STATES, TABLE, insert_row, just_now, lasting_url, read_row

PAGE = Page("guides/managing_jobs.md")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module; each test only uses its own rows."""
    yield from lasting_url(request)


@pytest.mark.parametrize("state", STATES)
async def test_only_incomplete_jobs_can_be_cancelled(oban: Oban, state: str) -> None:
    PAGE.says("ones that aren't `completed`, `discarded`, or already `cancelled`, can be cancelled")
    PAGE.says("changes the job status to `cancelled` and records a timestamp in the database")
    id_ = await insert_row(oban.engine, state)
    before = await read_row(oban.engine, id_)
    incomplete = state not in ("completed", "discarded", "cancelled")
    assert await oban.cancel_job(id_) is incomplete
    after = await read_row(oban.engine, id_)
    if incomplete:
        assert after is not None
        assert after["state"] == "cancelled"
        assert just_now(after["cancelled_at"])
    else:
        assert after == before


@pytest.mark.parametrize("state", STATES)
async def test_only_available_and_executing_jobs_are_ignored_by_retry(oban: Oban, state: str) -> None:
    PAGE.says("Jobs that are already `available` or `executing` are ignored")
    PAGE.says("any non-executing job can be retried, not just failed ones")
    id_ = await insert_row(oban.engine, state)
    before = await read_row(oban.engine, id_)
    ignored = state in ("available", "executing")
    assert await oban.retry_job(id_) is not ignored
    after = await read_row(oban.engine, id_)
    if ignored:
        assert after == before
    else:
        assert after is not None
        assert after["state"] == "available"
        assert just_now(after["scheduled_at"])


@pytest.mark.parametrize(("attempt", "most", "then"), [(1, 1, 2), (5, 5, 6), (4, 5, 5), (0, 20, 20)])
async def test_retry_raises_max_attempts_only_where_they_are_exhausted(
    oban: Oban, attempt: int, most: int, then: int
) -> None:
    PAGE.says("the limit is automatically increased to allow the retry")
    id_ = await insert_row(oban.engine, "cancelled", attempt=attempt, max_attempts=most)
    assert await oban.retry_job(id_)
    row = await read_row(oban.engine, id_)
    assert row is not None
    assert (row["attempt"], row["max_attempts"]) == (attempt, then)


@pytest.mark.parametrize("attempt", [0, 3])
async def test_a_scheduled_job_is_made_available_whether_it_ran_before_or_not(
    oban: Oban, attempt: int
) -> None:
    PAGE.says(
        "you can retry a `scheduled` job to make it `available` immediately, whether or not it has ever run"
    )
    id_ = await insert_row(oban.engine, "scheduled", attempt=attempt)
    assert await oban.retry_job(id_)
    row = await read_row(oban.engine, id_)
    assert row is not None
    assert (row["state"], row["attempt"]) == ("available", attempt)


@pytest.mark.parametrize("state", STATES)
async def test_deletion_is_permanent_and_ignores_executing_jobs(oban: Oban, state: str) -> None:
    PAGE.says("Deletion permanently removes a job from the database")
    PAGE.says("Jobs in the `executing` state cannot be deleted")
    id_ = await insert_row(oban.engine, state)
    before = await read_row(oban.engine, id_)
    spared = state == "executing"
    assert await oban.delete_job(id_) is not spared
    assert await read_row(oban.engine, id_) == (before if spared else None)


async def test_cancelling_retains_a_record_and_deleting_does_not(oban: Oban) -> None:
    PAGE.says("Cancelling is preferred over deletion because it retains a record")
    cancelled, deleted = [await insert_row(oban.engine) for _ in range(2)]
    await oban.cancel_job(cancelled)
    await oban.delete_job(deleted)
    left = [(job.id, job.state) for job in await oban.list_jobs() if job.id in (cancelled, deleted)]
    assert left == [(cancelled, "cancelled")]


#: A new valid value for each field that can be updated.
OTHER: dict[str, Any] = {
    "args": {"a": [1, "two", None]},
    "max_attempts": 7,
    "meta": {"m": {"n": 1.5}},
    "priority": 9,
    "queue": "critical",
    "scheduled_at": datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC),
    "tags": ["one", "two"],
    "worker": "app.Other",
}
IN_TABLE = re.findall(r"^\| `(\w+)` ", PAGE.text, re.MULTILINE)


def test_the_table_names_the_fields_that_are_tested_here() -> None:
    PAGE.says("The following fields can be updated")
    assert sorted(OTHER) == IN_TABLE


@pytest.mark.parametrize("field", IN_TABLE)
async def test_a_field_of_the_table_can_be_updated_alone(oban: Oban, field: str) -> None:
    id_ = await insert_row(oban.engine, "completed")
    before = await read_row(oban.engine, id_)
    updated = await oban.update_job(id_, {field: OTHER[field]})
    assert getattr(updated, field) == OTHER[field]
    assert before is not None
    assert await read_row(oban.engine, id_) == {**before, field: OTHER[field]}


@pytest.mark.parametrize("field", sorted({column.key for column in TABLE.columns} - set(IN_TABLE)))
async def test_no_other_column_can_be_updated(oban: Oban, field: str) -> None:
    id_ = await insert_row(oban.engine)
    before = await read_row(oban.engine, id_)
    assert before is not None
    changes: dict[str, Any] = {"priority": 1, field: before[field]}
    with pytest.raises(InvalidJob, match=f"^{field} cannot be set") as caught:
        await oban.update_job(id_, changes)
    assert isinstance(caught.value, ObanError)
    assert await read_row(oban.engine, id_) == before


async def test_the_callable_gets_each_job_of_many_separately(oban: Oban) -> None:
    PAGE.says("each job is updated individually based on its current state")
    ids = [await insert_row(oban.engine, state, priority=n) for n, state in enumerate(STATES)]
    updated = await oban.update_many_jobs(
        ids, lambda job: {"tags": [job.state.value], "priority": job.priority + 1}
    )
    assert [job.id for job in updated] == ids
    for n, (id_, state) in enumerate(zip(ids, STATES, strict=True)):
        row = await read_row(oban.engine, id_)
        assert row is not None
        assert (row["tags"], row["priority"], row["state"]) == ([state], n + 1, state)
