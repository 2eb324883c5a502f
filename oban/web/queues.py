"""The page `queues`."""

from starlette.responses import Response

from oban.web.routing import Page
from oban.web.visit import Visit


async def show(visit: Visit) -> Response:
    """`GET /queues`."""
    return visit.render("queues.html")


ROUTES = (Page("/queues", show),)
