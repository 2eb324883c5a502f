"""Every management call on a job in every state, named in every way, leaves the expected columns.

The expected states are written down here as a table, and are not taken from the library.
"""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import URL, select

from oban import Job, Oban
from oban.errors import JobNotFound
from tests.support.databases import DATABASES
from tests.support.rows import MADE, STATES, insert_rows, lasting_url, read_rows, row, shown

#: The state after the call. A dash means that the row is unchanged and not counted.
OUTCOMES = """
            cancel     retry      delete  update     callable   postpone   advance
available   cancelled  -          gone    available  available  scheduled  available
scheduled   cancelled  available  gone    scheduled  scheduled  scheduled  available
suspended   cancelled  available  gone    suspended  suspended  suspended  suspended
executing   cancelled  -          -       executing  executing  executing  executing
retryable   cancelled  available  gone    retryable  retryable  retryable  retryable
completed   -          available  gone    completed  completed  completed  completed
discarded   -          available  gone    discarded  discarded  discarded  discarded
cancelled   -          available  gone    cancelled  cancelled  cancelled  cancelled
"""
_HEAD, *_LINES = [line.split() for line in OUTCOMES.strip().splitlines()]
EXPECTED = {(op, state): after for state, *afters in _LINES for op, after in zip(_HEAD, afters, strict=True)}
OPERATIONS = tuple(_HEAD)
FORMS = ("id", "job", "list", "select")

STAMPS = {f"{state}_at": MADE + timedelta(days=1) for state in ("completed", "cancelled", "discarded")}
#: The rows of one state differ in the attempts used and allowed, and in these columns.
VARIATIONS: tuple[dict[str, Any], ...] = (
    {"attempt": 0, "max_attempts": 20},
    {"attempt": 2, "max_attempts": 5},
    {"attempt": 5, "max_attempts": 5},
    {"attempt": 1, "max_attempts": 1, **STAMPS},
)
META = {"kept": [1, {"a": None}], "snoozed": 2}
LATER = datetime(2091, 7, 1, 12, 30, 15, 250125, tzinfo=UTC)
CHANGES: dict[str, Any] = {
    "args": {"path": ["other"]},
    "max_attempts": 30,
    "meta": {"new": True},
    "priority": 8,
    "queue": "moved",
    "tags": ["x", "y"],
    "worker": "tests.Other",
}
UPDATES: dict[str, Any] = {
    "update": CHANGES,
    "callable": lambda job: {"priority": job.priority + 4, "tags": [*job.tags, f"was-{job.attempt}"]},
    "postpone": {"scheduled_at": LATER},
    "advance": {"schedule_in": 0},
}
_queues = count(1)


class Now:
    """Equal to every aware UTC time since it was created."""

    def __init__(self) -> None:
        # SQLite's clock has milliseconds, and truncates the rest.
        self.begin = datetime.now(UTC) - timedelta(milliseconds=2)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, datetime) or other.utcoffset() != timedelta(0):
            return False
        return self.begin <= other <= datetime.now(UTC) + timedelta(milliseconds=2)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<now, from {self.begin}>"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module", params=DATABASES)
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, each of which has its own queue."""
    yield from lasting_url(request)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def oban(url: URL) -> AsyncIterator[Oban]:
    """One client for all tests, so it compiles each statement once."""
    async with Oban(url) as client:
        yield client


def rows(state: str, queue: str) -> list[dict[str, Any]]:
    """One row for each variation of a state, all with errors and times that must not be lost."""
    made = []
    for variation in VARIATIONS:
        errors = [
            {"attempt": n + 1, "at": "2024-03-09T22:16:00.000000Z", "error": "boom"}
            for n in range(variation["attempt"])
        ]
        meta = {**META, "recorded": True, "return": {"n": [1]}}
        made.append(row(state, queue=queue, tags=["a", "b"], meta=meta, errors=errors, **variation))
    return made


def after(operation: str, before: dict[str, Any], now: Now) -> dict[str, Any] | None:
    """The whole row that a call must leave, or None if it must delete the row."""
    state = EXPECTED[operation, before["state"]]
    if state == "-":
        return before
    if state == "gone":
        return None
    effects: dict[str, dict[str, Any]] = {
        "cancel": {"cancelled_at": now},
        "retry": {
            "scheduled_at": now,
            "max_attempts": max(before["max_attempts"], before["attempt"] + 1),
            "meta": META,
            **dict.fromkeys(STAMPS),
        },
        "update": CHANGES,
        "callable": {"priority": 7, "tags": ["a", "b", f"was-{before['attempt']}"]},
        "postpone": {"scheduled_at": LATER},
        "advance": {"scheduled_at": now},
    }
    return {**before, "state": state, **effects[operation]}


async def call(oban: Oban, operation: str, target: Any) -> Any:
    """Call the method of an operation: the one for many jobs, unless `target` is a single job."""
    one = isinstance(target, (int, Job))
    if operation in UPDATES:
        return await (oban.update_job if one else oban.update_many_jobs)(target, UPDATES[operation])
    return await getattr(oban, f"{operation}_{'job' if one else 'many_jobs'}")(target)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_call_leaves_each_row_in_the_expected_state(
    oban: Oban, operation: str, form: str, state: str
) -> None:
    queue = f"matrix-{next(_queues)}"
    *ids, bystander = await insert_rows(oban.engine, *rows(state, queue), row(state, queue="elsewhere"))
    before = await read_rows(oban.engine, [*ids, bystander])
    handles = {job.id: job for job in await oban.list_jobs(select(Job).where(Job.queue == queue))}
    now = Now()

    passed: dict[int, Job] = {}
    returned: Any
    if form == "id":
        returned = [await call(oban, operation, id_) for id_ in ids]
    elif form == "job":
        passed = handles
        returned = [await call(oban, operation, handles[id_]) for id_ in ids]
    elif form == "list":
        passed = {ids[1]: handles[ids[1]], ids[3]: handles[ids[3]]}
        named: list[Any] = [handles[ids[3]], ids[0], handles[ids[1]], ids[2], ids[0], ids[3]]
        # Every operation but update ignores unknown ids.
        returned = await call(oban, operation, named if operation in UPDATES else [10**9, *named, -1])
    else:
        returned = await call(oban, operation, select(Job).where(Job.queue == queue))

    expected = {id_: after(operation, before[id_], now) for id_ in ids}
    found = await read_rows(oban.engine, [*ids, bystander])
    assert {id_: found.get(id_) for id_ in ids} == expected
    assert found[bystander] == before[bystander]
    for id_, job in passed.items():
        if id_ in found:
            assert shown(job) == found[id_]
    changed = EXPECTED[operation, state] != "-"
    if operation in UPDATES:
        order = [ids[3], ids[0], ids[1], ids[2]] if form == "list" else ids
        assert [job.id for job in returned] == order
        assert [shown(job) for job in returned] == [found[id_] for id_ in order]
        assert all(job is passed[job.id] for job in returned if job.id in passed)
    elif form in ("id", "job"):
        assert all(value is changed for value in returned)
    else:
        assert isinstance(returned, int)
        assert not isinstance(returned, bool)
        assert returned == (len(ids) if changed else 0)


async def test_a_select_names_exactly_the_rows_that_it_returns(oban: Oban) -> None:
    queue = f"matrix-{next(_queues)}"
    ids = await insert_rows(oban.engine, *[row(queue=queue, priority=n) for n in range(6)])
    statement = select(Job).where(Job.queue == queue).order_by(Job.priority.desc())
    assert [job.id for job in await oban.list_jobs(statement)] == ids[::-1]
    assert await oban.cancel_many_jobs(statement.limit(2)) == 2
    assert await oban.delete_many_jobs(statement.limit(2).offset(2)) == 2
    updated = await oban.update_many_jobs(statement.distinct(), {"tags": ["left"]})
    assert [job.id for job in updated] == [ids[0], ids[1], ids[4], ids[5]]
    left = {id_: found["state"] for id_, found in (await read_rows(oban.engine, ids)).items()}
    assert left == {ids[0]: "available", ids[1]: "available", ids[4]: "cancelled", ids[5]: "cancelled"}


async def test_a_select_can_use_the_columns_of_documents_lists_and_times(oban: Oban) -> None:
    queue = f"matrix-{next(_queues)}"
    ids = await insert_rows(
        oban.engine,
        row("scheduled", queue=queue, meta={"batch": "a"}, scheduled_at=LATER),
        row("scheduled", queue=queue, meta={"batch": "b"}, scheduled_at=LATER + timedelta(microseconds=1)),
    )
    ours = select(Job).where(Job.queue == queue)
    assert await oban.cancel_many_jobs(ours.where(Job.scheduled_at > LATER)) == 1
    assert await oban.delete_many_jobs(ours.where(Job.meta["batch"].as_string() == "a")) == 1
    left = [job.id for job in await oban.list_jobs(ours)]
    assert left == [ids[1]]


@pytest.mark.parametrize("make", [list, tuple, set, iter, dict.fromkeys, frozenset])
async def test_any_iterable_of_jobs_and_ids_is_accepted(oban: Oban, make: Any) -> None:
    ids = await insert_rows(oban.engine, *[row() for _ in range(3)])
    given = make(ids)
    assert await oban.cancel_many_jobs(given.keys() if isinstance(given, dict) else given) == 3


async def test_an_empty_selection_changes_nothing(oban: Oban) -> None:
    before = await read_rows(oban.engine)
    assert await oban.cancel_many_jobs([]) == 0
    assert await oban.retry_many_jobs(iter(())) == 0
    assert await oban.delete_many_jobs(select(Job).where(Job.queue == "nobody's")) == 0
    assert await oban.update_many_jobs([], {"priority": 1}) == []
    assert await oban.update_many_jobs([], lambda job: {}) == []
    assert await read_rows(oban.engine) == before


async def test_a_call_accepts_more_ids_than_a_statement_can_have_parameters(oban: Oban) -> None:
    (id_,) = await insert_rows(oban.engine, row())
    ids = [*range(10**9, 10**9 + 33_000), id_]
    assert await oban.cancel_many_jobs(ids) == 1
    assert await oban.retry_many_jobs(ids) == 1
    assert await oban.delete_many_jobs(ids) == 1
    with pytest.raises(JobNotFound) as caught:
        await oban.update_many_jobs(ids, {"priority": 1})
    assert caught.value.ids == ids
    assert len(str(caught.value)) < 1000
