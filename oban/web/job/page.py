"""The page of one job."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from starlette.responses import Response

from oban.models import Job
from oban.repository.management import CANCEL_STATES, DELETE_STATES
from oban.repository.retry import RETRY_STATES
from oban.types import ENDED_STATES, JobState
from oban.unique import Unique
from oban.web import hiding, job_links
from oban.web.job import documents, loading, relatives, stored_values, timeline
from oban.web.routing import Page
from oban.web.visit import Visit

_TIMES = ("inserted_at", "scheduled_at", "attempted_at", "completed_at", "cancelled_at", "discarded_at")


async def show(visit: Visit) -> Response:
    """`GET /jobs/{id}`."""
    access = visit.access
    async with visit.read() as session:
        job = await loading.row(visit, session)
        attempts = await visit.oban.list_attempts(job.id, session)
        why = await visit.oban.why(job.id, session)
        found = await relatives.find(visit.oban, session, job)
    # Before the job loses what the explanation can repeat.
    why = hiding.explanation(why, job, access)
    unique = _unique(job, visit)
    hiding.job(job, access, attempts)
    hides = [name for name in ("errors", "log") if not access.shows(name)]
    steps, left_out = timeline.steps(job, attempts, hides, _shown(visit))
    return visit.render(
        "job.html",
        job=job,
        state="unknown" if job.state is None else job.state.value,
        since=since(job),
        why=why,
        steps=steps,
        left_out=left_out,
        more=min(timeline.MOST, len(attempts) + 100),
        documents=documents.of(job, access),
        relatives=found,
        unique=unique,
        cron=_cron(job),
        tags=[(tag, _link(visit, tag=tag)) for tag in stored_values.texts(job.tags)],
        links={name: _link(visit, **{name: getattr(job, name)}) for name in ("worker", "queue")},
        nodes=stored_values.texts(job.attempted_by)[:1],
        times={name: stored_values.time(getattr(job, name)) for name in _TIMES},
        counts={
            name: stored_values.integer(stored_values.mapping(job.meta).get(name))
            for name in ("snoozed", "rescued")
        },
        can=_can(job),
        since_of=since,
    )


def since(job: Job) -> datetime | None:
    """When a job reached its state, or is due."""
    if job.state == JobState.EXECUTING:
        return stored_values.time(job.attempted_at)
    return stored_values.time(
        getattr(job, f"{job.state.value}_at") if job.state in ENDED_STATES else job.scheduled_at
    )


def _link(visit: Visit, **condition: Any) -> str:
    """The list of jobs with a value; empty for one that no job of Oban has."""
    is_plain = all(isinstance(value, str) and value.isprintable() for value in condition.values())
    return job_links.jobs(visit, **condition) if is_plain else ""


def _can(job: Job) -> Mapping[str, bool]:
    """What the state of a job allows. Broken rows can be deleted, if by nothing else, then by hand."""
    return {
        "cancel": job.state in CANCEL_STATES,
        "retry": job.state in RETRY_STATES,
        "delete": job.state in DELETE_STATES,
        "edit": job.state is not None,
    }


def _shown(visit: Visit) -> int:
    """How many attempts the address asks for."""
    wanted = visit.request.query_params.get("attempts", "")
    return min(int(wanted), timeline.MOST) if wanted.isdecimal() and len(wanted) < 6 else timeline.SHOWN


def _unique(job: Job, visit: Visit) -> Mapping[str, Any] | None:
    """The key of a unique job and the rule behind it."""
    if not isinstance(job.unique_key, str):
        return None
    rule = Unique.from_rule(job.unique_rule)
    return {"key": hiding.unique_key(job, visit.access), "rule": rule}


def _cron(job: Job) -> str | None:
    """The periodic entry that has inserted the job."""
    meta = stored_values.mapping(job.meta)
    name = meta.get("cron_name")
    return name if meta.get("cron") and isinstance(name, str) else None


ROUTES = (Page("/jobs/{id:int}", show),)
