"""The page of one job."""

from starlette.responses import Response

from oban.web.errors import NotFound
from oban.web.routing import Page
from oban.web.visit import Visit


async def show(visit: Visit) -> Response:
    """`GET /jobs/{id}`."""
    job_id = visit.request.path_params["id"]
    async with visit.read() as session:
        job = await visit.oban.get_job(job_id, session)
    if job is None:
        raise NotFound(f"There is no job {job_id}.")
    return visit.render("job.html", job=job)


ROUTES = (Page("/jobs/{id:int}", show),)
