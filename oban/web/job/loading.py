"""The job that an address names, as the user may see it."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from oban.models import Attempt, Job
from oban.web import hiding
from oban.web.errors import NotFound
from oban.web.visit import Visit


async def row(visit: Visit, session: AsyncSession) -> Job:
    """The job that the address names, with everything in it. Raises `NotFound`."""
    job_id: int = visit.request.path_params["id"]
    job = await visit.oban.get_job(job_id, session)
    if job is None:
        raise NotFound(f"There is no job {job_id}.")
    return job


async def job(visit: Visit, *, attempts: bool = False) -> tuple[Job, Sequence[Attempt]]:
    """The job that the address names, without what the user may not see, and its attempts."""
    async with visit.read() as session:
        found = await row(visit, session)
        history = await visit.oban.list_attempts(found.id, session) if attempts else []
    return hiding.job(found, visit.access, history), history
