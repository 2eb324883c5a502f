"""What a button of the page of a job does: cancel, retry, delete, and run again."""

from typing import Any

from starlette.responses import Response

from oban.errors import InvalidJob, ObanError
from oban.fields import MAX_ATTEMPTS
from oban.models import Job
from oban.repository.management import DELETE_STATES
from oban.repository.retry import RETRY_STATES, RetryOutcome
from oban.types import JobState
from oban.web import hiding
from oban.web.job import copies, loading
from oban.web.job.forms import Form
from oban.web.routing import Action, Page
from oban.web.visit import Visit


async def cancel(visit: Visit) -> Response:
    """`POST /jobs/{id}/cancel`."""
    job_id = _id(visit)
    form = await visit.request.form()
    async with visit.write() as session:
        before = await visit.oban.get_job(job_id, session)
        # The instance belongs to the session, and has the new state afterwards.
        state = None if before is None else before.state
        done = await visit.oban.cancel_job(job_id, session)
    if before is None:
        return _gone(visit)
    visit.audit("cancel_jobs", ids=[job_id], count=int(done), failed=not done)
    if not done:
        return await _left(visit, "cancelled")
    # The state that the page has shown, in case the node began or ended the attempt meanwhile.
    if state == JobState.EXECUTING or form.get("state") == JobState.EXECUTING:
        message = f"Job {job_id} is cancelled. Its worker is asked to stop, and may still run for a moment."
    else:
        message = f"Job {job_id} is cancelled."
    return visit.redirect(f"jobs/{job_id}", message)


async def retry(visit: Visit) -> Response:
    """`POST /jobs/{id}/retry`, with the optional fields `in`, `queue` and `priority`."""
    job_id = _id(visit)
    form = Form(await visit.request.form())
    options: Any = {
        "schedule_in": form.duration("in"),
        "queue": form.text("queue"),
        "priority": form.integer("priority"),
    }
    if form.problems:
        name, problem = next(iter(form.problems.items()))
        return visit.redirect(f"jobs/{job_id}", f"Not retried: {name} {problem}.", failed=True)
    outcomes: list[RetryOutcome] = []
    try:
        async with visit.write() as session:
            done = await visit.oban.retry_job(job_id, session, outcomes=outcomes, **options)
    except InvalidJob as error:
        return visit.redirect(f"jobs/{job_id}", f"Not retried: {error}.", failed=True)
    visit.audit("retry_jobs", ids=[job_id], count=int(done), failed=not done)
    if done:
        when = "is available again" if options["schedule_in"] is None else "is scheduled"
        return visit.redirect(f"jobs/{job_id}", f"Job {job_id} {when}.")
    if outcomes and outcomes[0].outcome == "conflict":
        other = outcomes[0].other_id
        problem = f"Not retried: job {job_id} is unique, and job {other} is in its way."
        return visit.redirect(f"jobs/{job_id}", problem, failed=True)
    return await _left(visit, "retried")


async def confirm_delete(visit: Visit) -> Response:
    """`GET /jobs/{id}/delete`: asks whether the job is to be deleted."""
    visit.require("delete_jobs")
    job, attempts = await loading.job(visit, attempts=True)
    return visit.render(
        "job_delete.html", job=job, attempts=len(attempts), allowed=job.state in DELETE_STATES
    )


async def delete(visit: Visit) -> Response:
    """`POST /jobs/{id}/delete`."""
    job_id = _id(visit)
    async with visit.write() as session:
        before = await visit.oban.get_job(job_id, session)
        done = await visit.oban.delete_job(job_id, session)
    if before is None:
        return _gone(visit)
    visit.audit("delete_jobs", ids=[job_id], count=int(done), failed=not done)
    if not done:
        return await _left(visit, "deleted")
    return visit.redirect("jobs", f"Job {job_id} is deleted.")


async def run_again(visit: Visit) -> Response:
    """`POST /jobs/{id}/again`: enqueues a new job with the same fields."""
    job_id = _id(visit)
    try:
        async with visit.write() as session:
            job = await visit.oban.get_job(job_id, session)
            new = None if job is None else await visit.oban.enqueue(copies.again(job), session)
            error = None
    # What another program has stored in the row can be refused in a new job.
    except ObanError as caught:
        new, error = None, caught
    if error is not None:
        visit.audit("enqueue_jobs", count=0, target=f"job {job_id}", failed=True)
        shown = await _without_secrets(visit, str(error))
        return visit.redirect(f"jobs/{job_id}", f"Job {job_id} cannot be run again: {shown}.", failed=True)
    if new is None:
        return _gone(visit)
    if new.conflict:
        visit.audit("enqueue_jobs", count=0, target=f"job {job_id}", failed=True)
        problem = f"There is no new job: job {job_id} is unique, and this one, job {new.id}, is in the way."
        return visit.redirect(f"jobs/{new.id}", problem, failed=True)
    visit.audit("enqueue_jobs", ids=[new.id], count=1, target=f"job {job_id}")
    return visit.redirect(f"jobs/{new.id}", f"This is job {new.id}, a new one with what job {job_id} has.")


def _id(visit: Visit) -> int:
    job_id: int = visit.request.path_params["id"]
    return job_id


def _gone(visit: Visit) -> Response:
    job_id = _id(visit)
    return visit.redirect("jobs", f"There is no job {job_id} any more.", failed=True)


async def _left(visit: Visit, done: str) -> Response:
    """The answer if a call has left a job alone, because of its state."""
    job_id = _id(visit)
    async with visit.read() as session:
        job = await visit.oban.get_job(job_id, session)
    if job is None:
        return _gone(visit)
    state = "in a state that Oban does not have" if job.state is None else job.state.value
    why = ""
    if job.state == JobState.EXECUTING and done == "deleted":
        why = " Cancel it first."
    elif done == "retried" and job.state in RETRY_STATES:
        why = f" It has used {MAX_ATTEMPTS:,} attempts, the most that there can be."
    return visit.redirect(f"jobs/{job_id}", f"Job {job_id} is not {done}: it is {state}.{why}", failed=True)


async def _without_secrets(visit: Visit, message: str) -> str:
    """A message about the job that the address names, without values that the user may not see."""
    async with visit.read() as session:
        job: Job | None = await visit.oban.get_job(_id(visit), session)
    return "" if job is None else hiding.text(message, job, visit.access)


ROUTES = (
    Action("/jobs/{id:int}/cancel", cancel, "cancel_jobs"),
    Action("/jobs/{id:int}/retry", retry, "retry_jobs"),
    Page("/jobs/{id:int}/delete", confirm_delete),
    Action("/jobs/{id:int}/delete", delete, "delete_jobs"),
    Action("/jobs/{id:int}/again", run_again, "enqueue_jobs"),
)
