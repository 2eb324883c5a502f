"""The page `jobs`."""

from starlette.responses import Response

from oban.web.routing import Page
from oban.web.visit import Visit


async def show(visit: Visit) -> Response:
    """`GET /jobs`."""
    return visit.render("jobs.html")


ROUTES = (Page("/jobs", show),)
