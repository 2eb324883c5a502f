"""`Oban` and `SyncOban`: options, sessions, statements and results."""

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from sqlalchemy import URL, Connection, Engine, create_engine, select
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session

from oban import (
    Explanation,
    Finding,
    Health,
    Job,
    JobState,
    JobUpdate,
    NodeInfo,
    Oban,
    ObanError,
    Periodic,
    PeriodicInfo,
    QueueInfo,
    QueueOptions,
    QueueSettings,
    Reason,
    Retention,
    Stats,
    SyncOban,
    Thresholds,
    Worker,
)
from oban.models import Attempt


class Plain(Worker):
    async def process(self, job: Job) -> None:
        return None


class OwnSession(AsyncSession):
    pass


def make(engine: AsyncEngine) -> list[Oban]:
    return [
        Oban(engine),
        Oban("sqlite+aiosqlite:///x.db", name="Other", node="a", prefix="private"),
        Oban(URL.create("postgresql+asyncpg"), queues={"default": 10, "media": QueueOptions(limit=2)}),
        Oban(engine, queues={"default": {"limit": 3}}, lease=30, shutdown_grace_period=5.5),
        Oban(engine, notifier="poll", retention=Retention(completed=timedelta(days=1)), poll_interval=0.5),
        Oban(engine, retention={"completed": None}),
        Oban(engine, lease=timedelta(minutes=1), shutdown_grace_period=timedelta(seconds=5)),
        Oban(engine, statement_timeout=timedelta(seconds=5), prune_interval=timedelta(minutes=5)),
        Oban(engine, session=async_sessionmaker(engine, class_=OwnSession)),
        Oban(engine, session=OwnSession),
        Oban(engine, session=lambda: OwnSession(engine)),
    ]


def raised(job: Job) -> JobUpdate:
    return {"priority": max(0, job.priority - 1), "schedule_in": timedelta(minutes=1)}


def untyped(job: Job) -> dict[str, Any]:
    return dict(job.args)


async def manage(oban: Oban, session: AsyncSession, connection: AsyncConnection) -> None:
    one, many = Plain.new(), [Plain.new(), Plain.new()]
    assert_type(await oban.enqueue(one), Job)
    assert_type(await oban.enqueue(one, session=session), Job)
    assert_type(await oban.enqueue_many(many, session=connection), list[Job])
    assert_type(await oban.enqueue_many(one, one), list[Job])
    assert_type(await oban.enqueue_many(job for job in many), list[Job])
    assert_type(await oban.enqueue_stream((job for job in many), batch=10, session=connection), int)
    assert_type(await oban.get_job(1), Job | None)
    assert_type(await oban.get_job(job_id=1), Job | None)
    assert_type(await oban.list_jobs(), list[Job])
    assert_type(await oban.list_jobs(select(Job).where(Job.queue == "x").limit(5)), list[Job])
    assert_type(await oban.list_jobs(select(Job), session, limit=5, after=one), list[Job])
    assert_type([job async for job in oban.iterate_jobs(select(Job), session, batch=5)], list[Job])
    due = select(Job).where(Job.state == JobState.AVAILABLE, Job.scheduled_at < datetime.now(UTC))
    assert_type(await oban.count_jobs(due, session, queue="x"), dict[str, dict[str, int]])
    assert_type((await oban.count_jobs())["default"]["available"], int)
    assert_type(await oban.list_queue_settings("x"), list[QueueSettings])
    assert_type(await oban.cancel_job(one), bool)
    assert_type(await oban.retry_job(5, session=session), bool)
    assert_type(await oban.retry_job(5, session, scheduled_at=datetime.now(UTC), queue="x"), bool)
    assert_type(await oban.retry_many_jobs(due, priority=1, schedule_in=5, scheduled_at=None), int)
    assert_type(await oban.delete_job(one), bool)
    assert_type(await oban.cancel_many_jobs(due), int)
    assert_type(await oban.retry_many_jobs([one, 5]), int)
    assert_type(await oban.delete_many_jobs({1, 2}, session=connection), int)
    assert_type(await oban.update_job(one, {"priority": 1}), Job)
    assert_type(await oban.update_job(5, lambda job: {"args": {**job.args, "n": 1}}), Job)
    assert_type(await oban.update_job(5, lambda job: {"tags": [*job.tags, "x"]} if job.tags else {}), Job)
    assert_type(await oban.update_many_jobs(due, {"tags": ["x"]}), list[Job])
    changes: JobUpdate = {"worker": "other", "meta": {}, "args": {"n": 1}}
    changes["scheduled_at"] = datetime.now(UTC)
    assert_type(await oban.update_job(5, changes), Job)
    assert_type(await oban.update_many_jobs([5], raised), list[Job])
    assert_type(await oban.update_job(5, untyped(one)), Job)
    assert_type(await oban.update_job(5, untyped), Job)
    assert_type(await oban.wait(one), Job)
    assert_type(await oban.wait(5, timeout=timedelta(seconds=5)), Job)
    await oban.wait_until_empty("media", timeout=2.5)
    assert_type(await oban.cancel_many_jobs(select(Job), everything=True), int)
    await oban.pause_queue("media", node="a", session=session)
    await oban.start_queue("media", limit=5, paused=True)
    await oban.scale_queue("media", None)
    assert_type(await oban.list_periodic(), list[PeriodicInfo])
    assert_type(await oban.why(1), Explanation)
    assert_type((await oban.why(1)).reasons, tuple[Reason, ...])
    assert_type(await oban.stats(session, count_limit=5), Stats)
    assert_type((await oban.stats()).counts, dict[str, int])
    assert_type(await oban.health(Thresholds(oldest_job_warning=5), skip=["bloat"], timeout=2.5), Health)
    assert_type((await oban.health()).findings, tuple[Finding, ...])
    assert_type(await oban.list_nodes(session=connection), list[NodeInfo])
    assert_type(await oban.list_attempts(one), list[Attempt])
    assert_type(await oban.run_periodic("a", session=session), Job)
    assert_type(await oban.update_periodic("a", expression="@daily", args={"n": 1}), PeriodicInfo)
    assert_type(await oban.reset_periodic("a"), PeriodicInfo)
    entry = Periodic("a", "@daily", Plain.new(), timezone="Europe/Berlin", catch_up=3, window=60)
    assert_type(await oban.add_periodic(entry, session=connection), PeriodicInfo)
    await oban.pause_periodic("a")
    await oban.delete_periodic("a")
    assert_type((await oban.list_periodic())[0].next_at, datetime | None)
    assert_type((await oban.list_periodic())[0].overridden, bool)
    assert_type(oban.check_queue("media"), QueueInfo | None)
    assert_type(oban.check_all_queues(), list[QueueInfo])
    assert_type(oban.is_leader, bool)
    assert_type(Oban.get_instance("Other"), Oban)
    async with oban as same:
        assert_type(same, Oban)


async def scoped(oban: Oban, session: async_scoped_session[AsyncSession]) -> None:
    await oban.enqueue(Plain.new(), session=session)
    await Plain.enqueue(session=session)


def manage_sync(session: Session, connection: Connection, scoped: scoped_session[Session]) -> None:
    with SyncOban(create_engine("sqlite://"), name="Other") as oban:
        assert_type(oban.enqueue(Plain.new(), session=session), Job)
        assert_type(oban.enqueue_many([Plain.new()], session=scoped), list[Job])
        assert_type(oban.enqueue_stream([Plain.new()], session=scoped), int)
        assert_type(oban.list_jobs(select(Job), session=connection), list[Job])
        assert_type(list(oban.iterate_jobs(session=scoped)), list[Job])
        assert_type(oban.cancel_many_jobs(select(Job).where(Job.id > 5)), int)
        assert_type(oban.update_job(5, {"queue": "x"}), Job)
        assert_type(oban.wait(5, timeout=1).recorded, Any)
        oban.wait_until_empty()
        oban.pause_queue("media", session=session)
        assert_type(oban.list_periodic(session=scoped), list[PeriodicInfo])
        assert_type(oban.why(1, session=scoped), Explanation)
        assert_type(oban.stats(session=connection), Stats)
        assert_type(oban.health(), Health)
        assert_type(oban.list_nodes(session=scoped), list[NodeInfo])
        assert_type(oban.list_attempts(1, session=session), list[Attempt])
        assert_type(oban.run_periodic("a"), Job)
        assert_type(oban.check_queue("media"), QueueInfo | None)
        assert_type(SyncOban.get_instance("Other"), SyncOban)
        assert_type(oban.engine, Engine)


def info(found: QueueInfo) -> tuple[str, int | None, bool]:
    return found.queue, found.limit, found.paused


def rows(session: Session) -> list[Job]:
    session.add(Plain.new())
    return list(session.scalars(select(Job).where(Job.tags.isnot(None))))


def caught(error: ObanError) -> Any:
    return error.args


engine = create_async_engine("sqlite+aiosqlite://")
