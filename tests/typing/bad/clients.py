"""Each line that is marked is an error for every checker, and no other line is."""

from sqlalchemy import create_engine, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, sessionmaker

from oban import Job, JobUpdate, Oban, Periodic, QueueOptions, Retention, SyncOban, Worker


class Plain(Worker):
    async def process(self, job: Job) -> None:
        return None


def make(engine: AsyncEngine) -> None:
    Oban()  # error
    Oban(5)  # error
    Oban(create_engine("sqlite://"))  # error
    Oban(engine, quues={"default": 1})  # error
    Oban(engine, queues=["default"])  # error
    Oban(engine, queues={"default": "10"})  # error
    Oban(engine, lease="60")  # error
    Oban(engine, notifier=5)  # error
    Oban(engine, notifier="pull")  # error
    Oban(engine, retention=5)  # error
    Oban(engine, session=sessionmaker())  # error
    Oban(engine, poll_interval=None, node=5)  # error
    QueueOptions(10)  # error
    QueueOptions(limit="10")  # error
    QueueOptions(limt=10)  # error
    Retention(completed="1d")  # error
    Retention(complete=5)  # error


def counted(job: Job) -> dict[str, int]:
    return {"attempts": job.attempt}


async def manage(oban: Oban, session: AsyncSession, wrong: Session, job: Job) -> None:
    await oban.enqueue("job")  # error
    await oban.enqueue(Plain)  # error
    await oban.enqueue(Plain.new(), session=wrong)  # error
    await oban.enqueue_many([1, 2])  # error
    await oban.enqueue_many(1)  # error
    await oban.enqueue_stream([1, 2])  # error
    await oban.get_job("1")  # error
    (await oban.get_job(1)).args  # error  # noqa: B018
    await oban.list_jobs("select")  # error
    await oban.list_jobs(update(Job))  # error
    await oban.list_jobs(select(Job), session=wrong)  # error
    await oban.list_jobs(limit="5")  # error
    await oban.list_jobs(after="5")  # error
    await oban.iterate_jobs()  # error
    oban.iterate_jobs(select(Job), session=wrong)  # error
    await oban.cancel_job("1")  # error
    await oban.cancel_job([job])  # error
    await oban.cancel_many_jobs(job)  # error
    await oban.cancel_many_jobs(["1"])  # error
    await oban.cancel_many_jobs(update(Job))  # error
    await oban.retry_many_jobs(5)  # error
    await oban.retry_job(5, scheduled_at="now")  # error
    await oban.retry_job(5, max_attempts=5)  # error
    await oban.delete_job(None)  # error
    await oban.update_job(job)  # error
    await oban.update_job(job, "queue")  # error
    await oban.update_job(job, lambda job: 5)  # error
    await oban.update_job(job, lambda job: {"args": job.no_such})  # error
    await oban.update_many_jobs(select(Job), {"queue": "x"}, session=wrong)  # error
    await oban.update_job(job, {"priorty": 1})  # error
    await oban.update_job(job, {"unique": True})  # error
    await oban.update_job(job, {"priority": "1"})  # error
    await oban.update_job(job, {"priority": 1, "state": "completed"})  # error
    await oban.update_job(job, {"meta": job.meta, "arg": job.args})  # error
    await oban.update_job(job, lambda job: {"tgas": [*job.tags, "x"]})  # error
    await oban.update_job(job, lambda job: {"priority": str(job.priority)})  # error
    await oban.update_many_jobs([job], {"queue": 5})  # error
    await oban.update_many_jobs([job], counted)  # error
    changes: JobUpdate = {"quue": "x"}  # error
    changes["quue"] = "x"  # error
    await oban.wait("1")  # error
    await oban.wait(job, timeout="5")  # error
    await oban.wait(job, session=session)  # error
    await oban.wait_until_empty(5)  # error
    job.recorded = 5  # error
    await oban.pause_queue(5)  # error
    await oban.start_queue("media", limit="5")  # error
    await oban.scale_queue("media")  # error
    await oban.pause_queue("media", nod="a")  # error
    await oban.pause_periodic(5)  # error
    await oban.update_periodic("a", expresion="@daily")  # error
    await oban.update_periodic("a", catch_up="last")  # error
    await oban.add_periodic("a")  # error
    Periodic("a", "@daily", job, catch_up="last")  # error
    oban.check_queue("media").limit  # error  # noqa: B018
    oban.no_such()  # error
    (await oban.cancel_job(1)).no_such()  # error


def manage_sync(oban: SyncOban, session: AsyncSession, engine: AsyncEngine) -> None:
    SyncOban(engine)  # error
    oban.enqueue("job")  # error
    oban.enqueue(Plain.new(), session=session)  # error
    oban.cancel_many_jobs(update(Job))  # error
    oban.list_jobs("select")  # error
    oban.update_job(5, 5)  # error
