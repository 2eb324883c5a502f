"""The page `overview`."""

from starlette.responses import Response

from oban.web.routing import Page
from oban.web.visit import Visit


async def show(visit: Visit) -> Response:
    """`GET /`."""
    return visit.render("overview.html")


ROUTES = (Page("/", show),)
