"""The form for a new job."""

from starlette.responses import Response

from oban.web.routing import Page
from oban.web.visit import Visit


async def show(visit: Visit) -> Response:
    """`GET /jobs/new`."""
    return visit.render("new_job.html")


ROUTES = (Page("/jobs/new", show),)
