"""The page `periodic`."""

from starlette.responses import Response

from oban.web.routing import Page
from oban.web.visit import Visit


async def show(visit: Visit) -> Response:
    """`GET /periodic`."""
    return visit.render("periodic.html")


ROUTES = (Page("/periodic", show),)
