"""What users can do to periodic entries, besides changing them in the form."""

from collections.abc import Awaitable, Callable

from starlette.responses import Response

from oban.errors import ConfigError, InvalidJob, PeriodicInCode, PeriodicNotFound
from oban.web.routing import Action, Handler
from oban.web.visit import Visit

#: How much of a name a message has.
_SHOWN = 80
Send = Callable[[Visit, str], Awaitable[str]]


def _action(action: str, send: Send) -> Handler:
    """A handler that changes one entry. `send` returns the message."""

    async def handle(visit: Visit) -> Response:
        name = str((await visit.request.form()).get("name", ""))
        try:
            message = await send(visit, name)
        except (ConfigError, InvalidJob, PeriodicInCode, PeriodicNotFound) as error:
            return visit.redirect("periodic", f"Nothing was changed: {error}", failed=True)
        visit.audit(action, target=name)
        if action == "delete_periodic":
            return visit.redirect("periodic", message)
        return visit.redirect("periodic/one", message, name=name)

    return handle


async def _pause(visit: Visit, name: str) -> str:
    async with visit.write() as session:
        await visit.oban.pause_periodic(name, session)
    return f"{shown(name)} is paused."


async def _resume(visit: Visit, name: str) -> str:
    async with visit.write() as session:
        await visit.oban.resume_periodic(name, session)
    return f"{shown(name)} is active."


async def _reset(visit: Visit, name: str) -> str:
    async with visit.write() as session:
        await visit.oban.reset_periodic(name, session)
    return f"{shown(name)} is as it was declared."


async def _delete(visit: Visit, name: str) -> str:
    async with visit.write() as session:
        await visit.oban.delete_periodic(name, session)
    return f"{shown(name)} was deleted."


async def run(visit: Visit) -> Response:
    """`POST /periodic/run`. It leads to the new job, or to the one that is in the way of a unique job."""
    name = str((await visit.request.form()).get("name", ""))
    try:
        async with visit.write() as session:
            job = await visit.oban.run_periodic(name, session)
            job_id, is_there, state, queue = job.id, job.conflict, job.state.value, job.queue
    except (ConfigError, InvalidJob, PeriodicNotFound) as error:
        return visit.redirect("periodic", f"No job was inserted: {error}", failed=True)
    visit.audit("run_periodic", target=name, ids=[job_id], count=0 if is_there else 1, failed=is_there)
    if is_there:
        message = f"No job was inserted: it is unique, and this job, which is {state}, is in the way."
        return visit.redirect(f"jobs/{job_id}", message, failed=True)
    return visit.redirect(f"jobs/{job_id}", f"This job of {shown(name)} is in the queue {shown(queue)}.")


def shown(name: str) -> str:
    """A name as messages have it."""
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"


ROUTES = (
    Action("/periodic/pause", _action("pause_periodic", _pause), "manage_periodic"),
    Action("/periodic/resume", _action("resume_periodic", _resume), "manage_periodic"),
    Action("/periodic/reset", _action("reset_periodic", _reset), "manage_periodic"),
    Action("/periodic/delete", _action("delete_periodic", _delete), "manage_periodic"),
    Action("/periodic/run", run, "manage_periodic"),
)
