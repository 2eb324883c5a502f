"""Random sequences of calls leave the same jobs as a model in memory that has no database."""

import dataclasses
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, event
from sqlalchemy.orm import Session

from oban import Job, RetryOutcome, SyncOban, UniqueConflict, Worker, clock
from tests.support.databases import Factory
from tests.support.rows import TABLE
from tests.support.schema import sync_engine

STARTED = datetime(2030, 1, 1, tzinfo=UTC)
GROUPS = {
    "all": {
        *("available", "scheduled", "suspended", "executing", "retryable"),
        *("completed", "cancelled", "discarded"),
    },
    "incomplete": {"available", "scheduled", "suspended", "executing", "retryable"},
    "successful": {"available", "scheduled", "suspended", "executing", "retryable", "completed"},
    "scheduled": {"scheduled"},
}
ENDED = {"completed", "cancelled", "discarded"}


class Counted(Worker, name="model.Counted"):
    """Its jobs bring their own rules."""

    def process(self, job: Job) -> None: ...


@dataclasses.dataclass
class Row:
    """A job of the model."""

    id: int
    key: int
    state: str
    rule: dict[str, Any]
    inserted_at: datetime
    scheduled_at: datetime


class Model:
    """What the library promises about unique jobs, in a few lines of Python."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.now = STARTED

    def in_the_way(self, key: int, rule: dict[str, Any], besides: int | None = None) -> set[int]:
        """The ids of the jobs that keep another one of the key from being inserted or retried."""
        period, timestamp = rule.get("period"), rule["timestamp"]
        since = None if period is None else self.now - timedelta(seconds=period)
        return {
            row.id
            for row in self.rows.values()
            if row.id != besides
            and row.key == key
            and row.state in GROUPS[rule["states"]]
            and (since is None or getattr(row, timestamp) >= since)
        }

    def insert(self, id_: int, key: int, rule: dict[str, Any], delay: int) -> None:
        state = "scheduled" if delay else "available"
        self.rows[id_] = Row(id_, key, state, rule, self.now, self.now + timedelta(seconds=delay))

    def retry(self, id_: int) -> str:
        row = self.rows.get(id_)
        if row is None:
            return "missing"
        if row.state in ("available", "executing"):
            return "unchanged"
        if self.in_the_way(row.key, row.rule, besides=id_):
            return "conflict"
        row.state, row.scheduled_at = "available", self.now
        return "changed"


keys = st.integers(0, 2)
rules = st.fixed_dictionaries(
    {
        "states": st.sampled_from(sorted(GROUPS)),
        "timestamp": st.sampled_from(["inserted_at", "scheduled_at"]),
    },
    optional={"period": st.sampled_from([5, 60])},
)
new_jobs = st.tuples(keys, rules, st.sampled_from([0, 0, 30]))
numbers = st.integers(0, 5)
steps = st.one_of(
    st.tuples(st.just("enqueue"), st.lists(new_jobs, min_size=1, max_size=1)),
    st.tuples(st.just("enqueue"), st.lists(new_jobs, min_size=2, max_size=5)),
    st.tuples(st.just("add"), st.lists(new_jobs, min_size=1, max_size=1)),
    st.tuples(st.just("end"), numbers, st.sampled_from(["completed", "cancelled", "discarded", "executing"])),
    st.tuples(st.just("retry"), st.lists(numbers, min_size=1, max_size=3, unique=True)),
    st.tuples(st.just("delete"), numbers),
    st.tuples(st.just("update"), numbers, keys),
    st.tuples(st.just("wait"), st.sampled_from([1, 5, 55, 120])),
)


def due_in(delay: int) -> dict[str, Any]:
    """The options of a job that is due after some seconds, or at once."""
    return {"schedule_in": delay} if delay else {}


class Comparison:
    """Takes each step with the library and with the model, and compares what they say."""

    def __init__(self, oban: SyncOban, time: clock.MovableClock) -> None:
        self.oban = oban
        self.time = time
        self.model = Model()

    def id_of(self, number: int) -> int:
        """One of the existing jobs, or an id that no job has."""
        ids = sorted(self.model.rows)
        return ids[number % len(ids)] if ids else 10**9

    @staticmethod
    def conflict_of(call: Callable[[], object]) -> int | None:
        """The id of the job that is in the way of a call; None if the call succeeds."""
        try:
            call()
        except UniqueConflict as conflict:
            return conflict.job_id
        return None

    def enqueue(self, new: list[Any]) -> None:
        jobs = [Counted.new({"key": key}, unique=rule, **due_in(delay)) for key, rule, delay in new]
        enqueued = self.oban.enqueue_many(jobs)
        for (key, rule, delay), job in zip(new, enqueued, strict=True):
            in_the_way = self.model.in_the_way(key, rule)
            assert job.conflict == bool(in_the_way)
            if job.conflict:
                assert job.id in in_the_way
                assert job.state == self.model.rows[job.id].state
            else:
                self.model.insert(job.id, key, rule, delay)

    def add(self, new: list[Any]) -> None:
        ((key, rule, _),) = new
        in_the_way = self.model.in_the_way(key, rule)
        job = Counted.new({"key": key}, unique=rule)
        with Session(self.oban.engine) as session:
            session.add(job)
            conflict = self.conflict_of(session.commit)
            assert conflict in in_the_way or (conflict is None and not in_the_way)
            if conflict is None:
                self.model.insert(job.id, key, rule, 0)

    def end(self, number: int, state: str) -> None:
        if (id_ := self.id_of(number)) in self.model.rows:
            self.model.rows[id_].state = state
            with self.oban.engine.begin() as connection:
                connection.execute(TABLE.update().where(TABLE.c.id == id_).values(state=state))

    def retry(self, chosen: list[int]) -> None:
        ids = list(dict.fromkeys(self.id_of(number) for number in chosen))
        outcomes: list[RetryOutcome] = []
        count = self.oban.retry_many_jobs(ids, outcomes=outcomes)
        expected = [self.model.retry(id_) for id_ in ids]
        assert [(each.id, each.outcome) for each in outcomes] == list(zip(ids, expected, strict=True))
        assert count == expected.count("changed")

    def delete(self, number: int) -> None:
        id_ = self.id_of(number)
        row = self.model.rows.get(id_)
        is_deleted = row is not None and row.state != "executing"
        assert self.oban.delete_job(id_) == is_deleted
        if is_deleted:
            del self.model.rows[id_]

    def update(self, number: int, key: int) -> None:
        row = self.model.rows.get(self.id_of(number))
        if row is None:
            return
        in_the_way = set()
        if key != row.key and row.state not in ENDED:
            in_the_way = self.model.in_the_way(key, row.rule, besides=row.id)
        conflict = self.conflict_of(lambda: self.oban.update_job(row.id, {"args": {"key": key}}))
        assert conflict in in_the_way or (conflict is None and not in_the_way)
        if conflict is None:
            row.key = key

    def wait(self, seconds: int) -> None:
        self.time.advance(seconds)
        self.model.now += timedelta(seconds=seconds)

    def check(self) -> None:
        """Compare all rows."""
        stored = {job.id: (job.args["key"], job.state) for job in self.oban.list_jobs()}
        assert stored == {row.id: (row.key, row.state) for row in self.model.rows.values()}


@pytest.fixture
def client(factory: Factory) -> Iterator[SyncOban]:
    url = factory.create()
    engine = create_engine(sync_engine(url).url)
    if url.get_backend_name() == "sqlite":
        # Thousands of commits would wait for the disk.
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    with SyncOban(engine) as oban:
        yield oban
    engine.dispose()
    factory.drop(url)


def compare(client: SyncOban, examples: int) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(st.lists(steps, min_size=1, max_size=25))
    def run(sequence: list[Any]) -> None:
        with client.engine.begin() as connection:
            connection.execute(TABLE.delete())
        time = clock.MovableClock(STARTED)
        with clock.use(time):
            comparison = Comparison(client, time)
            for name, *arguments in sequence:
                getattr(comparison, name)(*arguments)
            comparison.check()

    run()


@pytest.mark.parametrize("factory", ["sqlite", "psycopg"], indirect=True)
def test_sequences_of_calls_leave_the_jobs_of_the_model(client: SyncOban) -> None:
    compare(client, 40)


@pytest.mark.slow
@pytest.mark.parametrize("factory", ["sqlite", "psycopg"], indirect=True)
def test_many_sequences_of_calls_leave_the_jobs_of_the_model(client: SyncOban) -> None:
    compare(client, 200)
