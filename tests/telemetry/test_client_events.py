"""The events of both clients about what they insert and change."""

import inspect
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from typing import Any

import pytest
from sqlalchemy import URL, Engine, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import Job, Oban, Periodic, SyncOban, Unique, Worker
from oban.errors import JobNotFound
from oban.telemetry import (
    Event,
    JobsCancelled,
    JobsDeleted,
    JobsEnqueued,
    JobsRetried,
    JobsUpdated,
    PeriodicChanged,
    PeriodicInserted,
    QueueChanged,
)
from tests.support.schema import sync_engine
from tests.support.telemetry import Recorder, recording
from tests.support.workers import Noop


class Once(Worker, unique=Unique()):
    async def process(self, job: Job) -> None:
        pass


@pytest.fixture
def engine(url: URL) -> Iterator[Engine]:
    engine = sync_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture(params=["async", "sync"])
async def client(request: pytest.FixtureRequest, url: URL, engine: Engine) -> AsyncIterator[Any]:
    if request.param == "sync":
        yield SyncOban(engine, name="A", node="n")
        return
    async with Oban(url, name="A", node="n") as oban:
        yield oban


async def call(client: Oban | SyncOban, method: str, *args: Any, **options: Any) -> Any:
    result = getattr(client, method)(*args, **options)
    return await result if inspect.isawaitable(result) else result


def own(event: Event) -> dict[str, Any]:
    """The fields that events of this class have beyond those of all events, which are those of `client`."""
    values = asdict(event)
    assert (values.pop("instance"), values.pop("node")) == ("A", "n")
    return values


async def test_enqueued_jobs_are_told_apart_from_duplicates(client: Any) -> None:
    with recording(client) as recorder:
        await call(client, "enqueue_many", [Noop.new({"n": 1}), Noop.new({"n": 2}), Once.new()])
        await call(client, "enqueue", Once.new())
        await call(client, "enqueue_stream", [Noop.new()] * 0)
    many, one = recorder.of(JobsEnqueued)
    assert recorder.events == [many, one]
    assert [view.args for view in many.jobs] == [{"n": 1}, {"n": 2}, {}]
    assert (many.duplicates, one.jobs, one.duplicates) == (0, (), 1)
    assert many.duration > 0
    assert not many.in_transaction


async def test_a_stream_sends_an_event_for_each_batch(client: Any) -> None:
    with recording(client, JobsEnqueued) as recorder:
        await call(client, "enqueue_stream", (Noop.new({"n": n}) for n in range(5)), batch=2)
    assert [len(event.jobs) for event in recorder.of(JobsEnqueued)] == [2, 2, 1]


async def test_a_job_of_a_session_is_shown_as_it_was_enqueued(url: URL) -> None:
    oban = Oban(url)
    with recording(oban, JobsEnqueued) as recorder:
        async with AsyncSession(oban.engine, expire_on_commit=True) as session:
            job = await oban.enqueue(Noop.new({"n": 1}, tags=["a"]), session=session)
            job.args = {"n": 2}
            await session.commit()
    await oban.stop()
    (event,) = recorder.of(JobsEnqueued)
    assert event.in_transaction
    (view,) = event.jobs
    assert (view.args, view.meta, view.tags, view.attempt) == ({"n": 1}, {}, ("a",), 0)
    assert view.inserted_at <= view.scheduled_at
    assert repr(view) == f"JobView(id={view.id}, queue=default, worker={view.worker}, attempt=0)"


async def test_a_job_that_a_session_inserts_during_the_call_is_enqueued_by_it(url: URL) -> None:
    oban = Oban(url)
    with recording(oban, JobsEnqueued) as recorder:
        async with AsyncSession(oban.engine, expire_on_commit=False) as session, session.begin():
            job, other = Noop.new(), Noop.new()
            session.add(job)
            await oban.enqueue_many([job, other], session=session)
    await oban.stop()
    (event,) = recorder.of(JobsEnqueued)
    assert ([view.id for view in event.jobs], event.duplicates) == ([job.id, other.id], 0)


def test_a_sync_session_is_a_transaction_too(engine: Engine) -> None:
    oban = SyncOban(engine)
    with recording(oban) as recorder, Session(engine) as session:
        job = oban.enqueue(Noop.new(), session=session)
        oban.cancel_job(job, session=session)
        oban.pause_queue("default", session=session)
        session.rollback()
    assert recorder.names() == ["JobsEnqueued", "JobsCancelled", "QueueChanged"]
    assert all(getattr(event, "in_transaction") for event in recorder.events)  # noqa: B009


async def test_changes_of_jobs_tell_how_many_there_were(client: Any) -> None:
    jobs = await call(client, "enqueue_many", [Noop.new() for _ in range(5)])
    with recording(client) as recorder:
        await call(client, "cancel_job", jobs[0])
        await call(client, "cancel_many_jobs", select(Job).where(Job.state == "available"))
        await call(client, "retry_job", jobs[0])
        await call(client, "retry_many_jobs", jobs[:3])
        await call(client, "update_job", jobs[0], {"priority": 1})
        await call(client, "update_many_jobs", jobs[:2], {"priority": 2})
        await call(client, "delete_job", jobs[0])
        await call(client, "delete_many_jobs", jobs)
    assert [(type(event), own(event)) for event in recorder.events] == [
        (event, {"count": count, "in_transaction": False})
        for event, count in [
            (JobsCancelled, 1),
            (JobsCancelled, 4),
            (JobsRetried, 1),
            (JobsRetried, 2),
            (JobsUpdated, 1),
            (JobsUpdated, 2),
            (JobsDeleted, 1),
            (JobsDeleted, 4),
        ]
    ]


async def test_calls_that_change_nothing_send_no_event(client: Any) -> None:
    with recording(client) as recorder:
        await call(client, "cancel_job", 1)
        await call(client, "retry_many_jobs", [1, 2])
        await call(client, "delete_job", 1)
        await call(client, "update_many_jobs", select(Job).where(Job.id == 1), {"priority": 1})
        with pytest.raises(JobNotFound):
            await call(client, "update_job", 1, {"priority": 1})
    assert recorder.events == []


async def test_commands_for_queues(client: Any) -> None:
    with recording(client) as recorder:
        await call(client, "start_queue", "mail", limit=3, paused=True, node="other")
        await call(client, "scale_queue", "mail", 5)
        await call(client, "scale_queue", "mail", None)
        await call(client, "pause_queue", "mail")
        await call(client, "resume_all_queues", node="other")
        await call(client, "stop_queue", "mail")
    assert [type(event) for event in recorder.events] == [QueueChanged] * 6
    keys = ("action", "queue", "target", "limit", "paused")
    assert [tuple(own(event)[key] for key in keys) for event in recorder.events] == [
        ("start", "mail", "other", 3, True),
        ("scale", "mail", None, 5, None),
        ("scale", "mail", None, None, None),
        ("pause", "mail", None, None, True),
        ("resume", "*", "other", None, False),
        ("stop", "mail", None, None, None),
    ]


async def test_changes_of_periodic_entries_and_a_job_that_is_run_by_hand(client: Any) -> None:
    with recording(client) as recorder:
        await call(client, "add_periodic", Periodic("nightly", "0 3 * * *", Noop.new(queue="night")))
        await call(client, "update_periodic", "nightly", expression="0 4 * * *")
        await call(client, "pause_periodic", "nightly")
        await call(client, "resume_periodic", "nightly")
        job = await call(client, "run_periodic", "nightly")
        await call(client, "delete_periodic", "nightly")
    changes = recorder.of(PeriodicChanged)
    assert [(event.action, event.entry) for event in changes] == [
        (action, "nightly") for action in ("add", "update", "pause", "resume", "delete")
    ]
    (inserted,) = recorder.of(PeriodicInserted)
    assert own(inserted) == {
        "entry": "nightly",
        "tick": None,
        "job_id": job.id,
        "worker": Noop.worker_name,
        "queue": "night",
        "in_transaction": False,
    }


def test_a_client_on_a_connection_sends_events(engine: Engine) -> None:
    with engine.connect() as connection:
        oban = SyncOban(connection)
        with recording(oban, JobsEnqueued) as recorder:
            oban.enqueue(Noop.new())
    (event,) = recorder.of(JobsEnqueued)
    assert not event.in_transaction


def test_no_event_is_created_for_other_handlers(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, **fields: Any) -> None:
        raise AssertionError("an event was created")

    oban, recorder = SyncOban(engine), Recorder()
    oban.telemetry.attach(recorder, QueueChanged)
    for event in (JobsEnqueued, JobsCancelled):
        monkeypatch.setattr(event, "__init__", refuse)
    oban.cancel_job(oban.enqueue(Noop.new()))
    assert recorder.events == []
