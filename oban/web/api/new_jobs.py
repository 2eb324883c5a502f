"""`POST api/jobs`: enqueues jobs."""

from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import Field

from oban.documents.jobs import JobDocument, job_document
from oban.errors import InvalidJob
from oban.models import Job
from oban.registry import registry
from oban.web import hiding
from oban.web.api.bodies import Body
from oban.web.api.problems import Refusal
from oban.web.api.routing import ApiAction
from oban.web.visit import Visit

#: A time with an offset. In strict mode, JSON would have no type for it.
Time = Annotated[datetime, Field(strict=False)]
#: How many jobs a request can enqueue.
MOST = 1000


class NewJob(Body):
    """A job to enqueue."""

    worker: str = Field(
        description="The name of its worker. If the dashboard's process knows it, its options apply."
    )
    args: dict[str, Any] = Field(default_factory=dict)
    queue: str | None = None
    priority: int | None = None
    max_attempts: int | None = None
    tags: list[str] | None = None
    meta: dict[str, Any] | None = None
    scheduled_at: Time | None = Field(default=None, description="When it is due, with an offset.")
    schedule_in: float | None = Field(default=None, description="In how many seconds it is due.")


class NewJobs(Body):
    """Jobs to enqueue, all of them or none."""

    jobs: list[NewJob] = Field(min_length=1, max_length=MOST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueued(JobDocument):
    """A job that was enqueued, or the one that is in the way of a unique one."""

    #: Whether the job was not inserted, because it is unique and this one is in its way.
    conflict: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueuedJobs:
    """The jobs in the order of the request."""

    jobs: list[Enqueued]


async def enqueue(visit: Visit, body: NewJobs) -> EnqueuedJobs:
    """`POST /api/jobs`."""
    jobs = [_job(number, each) for number, each in enumerate(body.jobs)]
    async with visit.write() as session:
        await visit.oban.enqueue_many(jobs, session=session)
    inserted = [job for job in jobs if not job.conflict]
    visit.audit(count=len(inserted), ids=[job.id for job in inserted])
    return EnqueuedJobs(jobs=[_enqueued(visit, job) for job in jobs])


def _job(number: int, new: NewJob) -> Job:
    values: Any = {name: value for name, value in new.model_dump().items() if value is not None}
    try:
        if (worker := registry.get(new.worker)) is None:
            return Job(**values)
        del values["worker"]
        made: Job = worker.new(values.pop("args"), **values)
    except InvalidJob as error:
        raise Refusal.of_field(f"jobs[{number}].{error.field}", error.problem) from None
    return made


def _enqueued(visit: Visit, job: Job) -> Enqueued:
    conflict = job.conflict
    document = job_document(hiding.job(job, visit.access))
    values = {name: getattr(document, name) for name in JobDocument.__dataclass_fields__}
    return Enqueued(**values, conflict=conflict)


ROUTES = (
    ApiAction(
        path="/api/jobs",
        handler=enqueue,
        permission="enqueue_jobs",
        summary="Enqueue jobs",
        about="All jobs are inserted in one transaction, or none is.",
        body=NewJobs,
        answer=EnqueuedJobs,
        status=HTTPStatus.CREATED,
        example={"jobs": [{"worker": "app.workers.SendEmail", "args": {"to": 7}, "queue": "mail"}]},
    ),
)
