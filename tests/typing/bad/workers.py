"""Each line that is marked is an error for every checker, and no other line is."""

from datetime import datetime

from sqlalchemy.orm import Session

from oban import Cancel, Discard, Job, Snooze, Unique, Worker, current_job, worker


class Plain(Worker):
    async def process(self, job: Job) -> None:
        return None


class Misspelt(Worker, quue="media"):  # error
    pass


class WrongUnique(Worker, unique="incomplete"):  # error
    pass


class WrongQueue(Worker, queue=1):  # error
    pass


class WrongCron(Worker, cron=5):  # error
    pass


class WrongCatchUp(Worker, cron="@daily", catch_up="last"):  # error
    pass


class WrongPriority(Worker, priority="high"):  # error
    pass


class WrongTags(Worker, tags="a"):  # error
    pass


class WrongMeta(Worker, meta=["a"]):  # error
    pass


class WrongExecutor(Worker, executor="fork"):  # error
    pass


class WrongRetryOn(Worker, retry_on="KeyError"):  # error
    pass


class WrongDiscardOn(Worker, discard_on=KeyError("a")):  # error
    pass


class WrongCancelOn(Worker, cancel_on={KeyError: 5}):  # error
    pass


class WrongSnoozeOn(Worker, snooze_on=KeyError):  # error
    pass


class WrongDelay(Worker, snooze_on={KeyError: "5"}):  # error
    pass


class NotForAll(Worker, schedule_in=5):  # error
    pass


class WrongBackoff(Worker):
    def backoff(self, job: Job) -> str:  # error
        return "later"


class WrongTimeout(Worker):
    def timeout(self, job: Job) -> str:  # error
        return "later"


@worker(quue="media")  # error
class Decorated:
    def process(self, job: Job) -> None:
        return None


async def enqueue(session: Session) -> None:
    Plain.new({}, prioriti=1)  # error
    Plain.new({}, priority="1")  # error
    Plain.new({}, max_attempts=None)  # error
    Plain.new({}, unique=60)  # error
    Plain.new({}, unique={"perod": 60})  # error
    Plain.new({}, unique={"states": "incomplte"})  # error
    Plain.new({}, unique={"states": ["runing"]})  # error
    Plain.new({}, unique={"fields": ["arg"]})  # error
    Plain.new({}, unique={"keys": 3})  # error
    Plain.new({}, unique=True, replace=["scheduled"])  # error
    Plain.new({}, unique=True, replace={"schedule": ["args"]})  # error
    Unique(period="60")  # error
    Unique(timestamp="completed_at")  # error
    Plain.new({}, tags="a")  # error
    Plain.new({}, meta=1)  # error
    Plain.new({}, scheduled_at="tomorrow")  # error
    Plain.new({}, schedule_in="60")  # error
    Plain.new({}, state="completed")  # error
    Plain.new({}, worker="other")  # error
    Plain.new("args")  # error
    Plain.new({1: 2})  # error
    Plain.new([])  # error
    await Plain.enqueue({}, quue="x")  # error
    await Plain.enqueue({}, queue=5)  # error
    await Plain.enqueue({}, session=session)  # error
    await Plain.enqueue({}, session="session")  # error
    Plain.enqueue_sync({}, session=5)  # error
    Plain.enqueue_sync({}, quue="x")  # error


def read(job: Job) -> None:
    job.no_such_field  # error  # noqa: B018
    job.completed_at.isoformat()  # error
    job.attempt = "1"  # error
    job.tags = "a"  # error
    job.scheduled_at = "now"  # error
    job.state.upper().no_such()  # error
    current_job().args  # error  # noqa: B018
    Cancel(5)  # error
    Discard(5)  # error
    Cancel("a").reason = "b"  # error
    Snooze("5")  # error
    Snooze(datetime.now())  # error


def make() -> list[Job]:
    return [
        Job(worker="x", prioriti=3),  # error
        Job(worker="x", queue=5),  # error
        Job(queue="x"),  # error
        Job(worker="x", args={"a": 1}, schedule_in=60),
    ]
