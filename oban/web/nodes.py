"""The page `nodes`."""

from starlette.responses import Response

from oban.web.routing import Page
from oban.web.visit import Visit


async def show(visit: Visit) -> Response:
    """`GET /nodes`."""
    return visit.render("nodes.html")


ROUTES = (Page("/nodes", show),)
