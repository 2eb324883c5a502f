"""`update_job` writes only the named fields, refuses invalid ones, and refreshes instances.

See also `test_update_races`.
"""

from collections import UserDict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest
from sqlalchemy import URL

from oban import Job, Oban
from oban.errors import InvalidJob
from tests.support.databases import DATABASES
from tests.support.rows import STATES, insert_row, insert_rows, just_now, lasting_url, read_rows, row, shown
from tests.support.statements import recorded

#: Changes that an update must refuse, and the error messages.
REFUSED: list[tuple[Any, str]] = [
    ({"id": 1}, "id cannot be set"),
    ({"priority": 1, "state": "completed"}, "state cannot be set"),
    ({"attempt": 0}, "attempt cannot be set"),
    ({"errors": []}, "errors cannot be set"),
    ({"inserted_at": datetime(2024, 1, 1, tzinfo=UTC)}, "inserted_at cannot be set"),
    ({"tags": ["a"], "priorty": 1}, "priorty cannot be set; did you mean priority"),
    ({3: 1}, "3 cannot be set"),
    ({"priority": 10}, "priority must be 0 to 9, not 10"),
    ({"queue": ""}, "queue '' is not a queue name"),
    ({"scheduled_at": None}, "scheduled_at must be a datetime"),
    ({"scheduled_at": datetime(2024, 1, 1)}, "scheduled_at must carry a time zone"),
    ({"schedule_in": 1, "scheduled_at": datetime(2024, 1, 1, tzinfo=UTC)}, "pass one of them"),
    ({"meta": {"a": {1}}}, r'meta\["a"\] is not JSON: set'),
    (None, "changes must be a dict, not NoneType"),
    ([("priority", 1)], "changes must be a dict, not list"),
    ("priority", "changes must be a dict, not str"),
    (7, "changes must be a dict, not int"),
]
REFUSED_IDS = [str(changes)[:40] for changes, _ in REFUSED]


@pytest.fixture(scope="module", params=DATABASES)
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, each of which reads only its own rows."""
    yield from lasting_url(request)


async def fetched(oban: Oban, id_: int) -> Job:
    job = await oban.get_job(id_)
    assert job is not None
    return job


async def inserted(oban: Oban, count: int, **columns: Any) -> list[Job]:
    """Insert equal rows, and load them as instances."""
    ids = await insert_rows(oban.engine, *[row(**columns) for _ in range(count)])
    return [await fetched(oban, id_) for id_ in ids]


def writes(statements: list[str]) -> list[str]:
    """The UPDATEs among the statements, without the one that locks the database on SQLite."""
    return [text for text in statements if text.startswith("UPDATE") and not text.endswith("WHERE 0")]


# -- changes that are written ------------------------------------------------------------------


async def test_a_stale_instance_does_not_undo_other_changes(oban: Oban) -> None:
    (old,) = await inserted(oban, 1, tags=["old"], meta={"old": 1}, priority=1)
    await oban.update_job(old.id, {"meta": {"recorded": True}, "priority": 9, "queue": "moved"})
    assert (old.meta, old.priority) == ({"old": 1}, 1)
    await oban.update_job(old, {"tags": ["new"]})
    found = (await read_rows(oban.engine, [old.id]))[old.id]
    assert (found["tags"], found["meta"]) == (["new"], {"recorded": True})
    assert (found["priority"], found["queue"]) == (9, "moved")
    assert shown(old) == found


async def test_an_update_does_not_write_other_attributes_that_were_set_on_the_instance(oban: Oban) -> None:
    (job,) = await inserted(oban, 1, priority=3)
    job.priority = 8
    await oban.update_job(job, {"tags": ["new"]})
    assert (job.priority, job.tags) == (3, ["new"])
    assert (await fetched(oban, job.id)).priority == 3


async def test_only_the_named_columns_are_written(oban: Oban) -> None:
    jobs = await inserted(oban, 3)
    with recorded(oban.engine) as statements:
        await oban.update_many_jobs(jobs, {"priority": 5, "tags": ["a"]})
    (statement,) = writes(statements)
    columns = statement.split(" SET ")[1].split(" WHERE ")[0].split(", ")
    assert sorted(column.split("=")[0].strip() for column in columns) == ["priority", "tags"]


@pytest.mark.parametrize("changes", [{}, lambda job: {}], ids=["dict", "callable"])
async def test_no_changes_write_nothing_and_still_return_the_job(oban: Oban, changes: Any) -> None:
    id_ = await insert_row(oban.engine, "retryable")
    before = await read_rows(oban.engine, [id_])
    with recorded(oban.engine) as statements:
        updated = await oban.update_job(id_, changes)
    assert writes(statements) == []
    assert shown(updated) == before[id_]
    assert await read_rows(oban.engine, [id_]) == before


async def test_values_are_normalised_and_copied_like_those_of_a_new_job(oban: Oban) -> None:
    first, second = await inserted(oban, 2)
    given: dict[str, Any] = {"list": [1]}
    await oban.update_many_jobs([first, second], {"tags": [" B ", "a", "b"], "meta": given})
    given["list"].append(2)
    first.meta["list"].append(3)
    assert second.meta == {"list": [1]}
    for job in (first, second):
        assert job.tags == ["a", "b"]
        stored = await fetched(oban, job.id)
        assert (stored.tags, stored.meta) == (["a", "b"], {"list": [1]})


@pytest.mark.parametrize("kind", [dict, MappingProxyType, UserDict])
async def test_changes_can_be_any_mapping(oban: Oban, kind: Any) -> None:
    (job,) = await inserted(oban, 1)
    await oban.update_job(job, kind({"priority": 4}))
    await oban.update_job(job, lambda job: kind({"tags": [str(job.priority)]}))
    assert ((await fetched(oban, job.id)).priority, job.tags) == (4, ["4"])


async def test_a_job_that_is_named_twice_is_updated_once(oban: Oban) -> None:
    first, second = await inserted(oban, 2, meta={"count": 0})
    called: list[int] = []

    def counted(job: Job) -> dict[str, Any]:
        called.append(job.id)
        return {"meta": {"count": job.meta["count"] + 1}}

    named: list[Job | int] = [second, first.id, second.id, first, second, first.id]
    updated = await oban.update_many_jobs(named, counted)
    assert [job.id for job in updated] == [second.id, first.id]
    assert called == sorted([first.id, second.id])
    for job in (first, second):
        assert job.meta == {"count": 1}
        assert (await fetched(oban, job.id)).meta == {"count": 1}


@pytest.mark.parametrize("call", ["cancel_many_jobs", "retry_many_jobs", "update_many_jobs"])
async def test_all_passed_instances_of_a_job_show_the_new_row(oban: Oban, call: str) -> None:
    id_ = await insert_row(oban.engine, "retryable", priority=2)
    first, second = await fetched(oban, id_), await fetched(oban, id_)
    more = ({"priority": 7},) if call == "update_many_jobs" else ()
    await getattr(oban, call)([first, second], *more)
    assert shown(first) == shown(second) == (await read_rows(oban.engine, [id_]))[id_]


# -- times -------------------------------------------------------------------------------------

AHEAD = datetime(2077, 3, 14, 1, 59, 26, 535897, tzinfo=UTC)


@pytest.mark.parametrize(
    ("state", "changes", "then"),
    [
        ("available", {"scheduled_at": AHEAD}, "scheduled"),
        ("available", {"schedule_in": 60}, "scheduled"),
        ("available", {"schedule_in": timedelta(days=1)}, "scheduled"),
        ("available", {"scheduled_at": datetime(2020, 1, 1, tzinfo=UTC)}, "available"),
        ("scheduled", {"scheduled_at": datetime(2020, 1, 1, tzinfo=UTC)}, "available"),
        ("scheduled", {"schedule_in": 0.0}, "available"),
        ("scheduled", {"scheduled_at": AHEAD}, "scheduled"),
        ("retryable", {"schedule_in": 0}, "retryable"),
        ("completed", {"schedule_in": 60}, "completed"),
    ],
)
async def test_a_new_time_decides_between_available_and_scheduled(
    oban: Oban, state: str, changes: dict[str, Any], then: str
) -> None:
    job = await fetched(oban, await insert_row(oban.engine, state))
    await oban.update_job(job, changes)
    found = (await read_rows(oban.engine, [job.id]))[job.id]
    assert found["state"] == then
    assert found == shown(job)
    if "scheduled_at" in changes:
        assert found["scheduled_at"] == changes["scheduled_at"]
    else:
        delay = changes["schedule_in"]
        delay = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)
        assert just_now(found["scheduled_at"] - delay)


async def test_a_time_in_any_zone_is_the_same_instant(oban: Oban) -> None:
    (job,) = await inserted(oban, 1)
    kathmandu = AHEAD.astimezone(timezone(timedelta(hours=5, minutes=45)))
    await oban.update_job(job, {"scheduled_at": kathmandu})
    assert job.scheduled_at == AHEAD
    assert job.scheduled_at.utcoffset() == timedelta(0)
    assert (await fetched(oban, job.id)).scheduled_at == AHEAD


async def test_other_changes_leave_state_and_time_alone(oban: Oban) -> None:
    # Overdue but not staged yet. An update of its tags must not make it available.
    past = datetime(2024, 1, 1, tzinfo=UTC)
    ids = [await insert_row(oban.engine, state, scheduled_at=past) for state in STATES]
    before = await read_rows(oban.engine, ids)
    await oban.update_many_jobs(ids, {"tags": ["t"]})
    assert await read_rows(oban.engine, ids) == {id_: {**before[id_], "tags": ["t"]} for id_ in ids}


# -- changes that are refused ------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=REFUSED_IDS)
async def test_invalid_changes_are_refused_before_any_row_is_touched(
    oban: Oban, changes: Any, message: str
) -> None:
    jobs = await inserted(oban, 2)
    before = await read_rows(oban.engine, [job.id for job in jobs])
    with recorded(oban.engine) as statements, pytest.raises(InvalidJob, match=message):
        await oban.update_many_jobs(jobs, changes)
    assert [text for text in statements if "oban_jobs" in text] == []
    assert [shown(job) for job in jobs] == list(before.values())
    assert await read_rows(oban.engine, list(before)) == before


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=REFUSED_IDS)
async def test_a_callable_that_returns_invalid_changes_for_one_job_changes_none(
    oban: Oban, changes: Any, message: str
) -> None:
    jobs = await inserted(oban, 3)
    before = await read_rows(oban.engine, [job.id for job in jobs])
    with pytest.raises(InvalidJob, match=message):
        await oban.update_many_jobs(
            jobs, lambda job: changes if job.id == jobs[1].id else {"priority": 9, "schedule_in": 60}
        )
    assert [shown(job) for job in jobs] == list(before.values())
    assert await read_rows(oban.engine, list(before)) == before


@pytest.mark.parametrize("failing", [0, 57, 99])
async def test_a_callable_that_raises_for_one_of_a_hundred_changes_none(oban: Oban, failing: int) -> None:
    ids = await insert_rows(oban.engine, *[row(meta={"n": n}) for n in range(100)])
    handles = [await fetched(oban, id_) for id_ in (ids[0], ids[failing], ids[99])]
    before = await read_rows(oban.engine, ids)
    called: list[int] = []

    def change(job: Job) -> dict[str, Any]:
        called.append(job.meta["n"])
        if job.meta["n"] == failing:
            raise ZeroDivisionError("mine")
        return {"priority": 9, "tags": ["changed"]}

    with pytest.raises(ZeroDivisionError, match="mine"):
        await oban.update_many_jobs([*handles, *ids], change)
    assert called == list(range(failing + 1))
    assert await read_rows(oban.engine, ids) == before
    assert [shown(job) for job in handles] == [before[job.id] for job in handles]


@pytest.mark.parametrize("field", ["priority", "id", "state", "scheduled_at"])
async def test_the_error_for_a_callable_that_sets_an_attribute_asks_for_a_dict(
    oban: Oban, field: str
) -> None:
    jobs = await inserted(oban, 2)
    before = await read_rows(oban.engine, [job.id for job in jobs])
    other = {"priority": 5, "id": 10**6, "state": "completed", "scheduled_at": AHEAD}[field]

    def change(job: Job) -> dict[str, Any]:
        setattr(job, field, other)
        return {}

    with pytest.raises(InvalidJob, match="returned as a dict"):
        await oban.update_many_jobs(jobs, change)
    assert [shown(job) for job in jobs] == list(before.values())
    assert await read_rows(oban.engine, list(before)) == before


async def test_a_document_that_a_callable_changes_in_place_is_written_if_it_is_returned(oban: Oban) -> None:
    (job,) = await inserted(oban, 1, meta={"seen": []})

    def change(job: Job) -> dict[str, Any]:
        job.meta["seen"].append(1)
        return {"meta": job.meta}

    assert (await oban.update_job(job, change)).meta == {"seen": [1]}
    assert (await fetched(oban, job.id)).meta == {"seen": [1]}


async def test_an_instance_does_not_show_a_document_that_a_callable_changed_but_did_not_return(
    oban: Oban,
) -> None:
    (job,) = await inserted(oban, 1, meta={"seen": []}, tags=["a"])

    def change(job: Job) -> dict[str, Any]:
        job.meta["seen"].append(1)
        job.tags.append("b")
        return {"priority": 1}

    try:
        updated = await oban.update_job(job, change)
    except InvalidJob:
        updated = job
    assert shown(updated) == (await read_rows(oban.engine, [job.id]))[job.id]


async def test_an_async_callable_is_refused_with_a_reason(oban: Oban) -> None:
    (job,) = await inserted(oban, 1)
    made: list[Any] = []

    async def change(job: Job) -> dict[str, Any]:
        return {"priority": 1}

    def kept(job: Job) -> Any:
        made.append(change(job))
        return made[-1]

    with pytest.raises(InvalidJob, match=r"coroutine|async"):
        await oban.update_job(job, kept)
    for coroutine in made:
        coroutine.close()
    assert (await fetched(oban, job.id)).priority == 3


@pytest.mark.parametrize(
    ("state", "attempt", "least"),
    [
        ("available", 3, 4),
        ("scheduled", 3, 4),
        ("suspended", 3, 4),
        ("retryable", 3, 4),
        ("executing", 3, 3),
        ("completed", 3, 3),
        ("discarded", 3, 3),
        ("cancelled", 3, 3),
        ("cancelled", 0, 1),
    ],
)
async def test_max_attempts_cannot_be_lowered_below_the_attempt_that_a_job_waits_for(
    oban: Oban, state: str, attempt: int, least: int
) -> None:
    id_ = await insert_row(oban.engine, state, attempt=attempt, max_attempts=9)
    with pytest.raises(InvalidJob, match=r"^max_attempts must be"):
        await oban.update_job(id_, {"max_attempts": least - 1})
    assert (await fetched(oban, id_)).max_attempts == 9
    await oban.update_job(id_, {"max_attempts": least})
    assert (await fetched(oban, id_)).max_attempts == least


async def test_other_fields_of_a_job_without_attempts_left_can_be_updated(oban: Oban) -> None:
    id_ = await insert_row(oban.engine, "available", attempt=4, max_attempts=4)
    await oban.update_job(id_, {"priority": 9})
    assert (await fetched(oban, id_)).priority == 9


@pytest.mark.parametrize("value", [1e22, 1.5e300, 2**63, -(2**63), 5e-324, 0.1, -0.0])
async def test_a_number_that_was_stored_can_be_stored_again(oban: Oban, value: float) -> None:
    job = await oban.enqueue(Job(worker="tests.Nobody", meta={"n": value}))
    await oban.update_job(job, lambda job: {"meta": {**job.meta, "again": True}})
    assert (await fetched(oban, job.id)).meta == {"n": value, "again": True}
