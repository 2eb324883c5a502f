"""`GET api/openapi.json`: the description of the API, which is a file of this package.

`python -m tests.support.openapi` writes the file, from the declarations of the routes.
"""

import functools
from importlib import resources
from typing import Any

import orjson

from oban import __version__
from oban.web.api.bodies import Query
from oban.web.api.routing import ApiPage
from oban.web.visit import Visit

NAME = "openapi.json"


@functools.cache
def stored() -> dict[str, Any]:
    """The description, without the version and the address of a dashboard."""
    found: dict[str, Any] = orjson.loads(resources.files("oban.web.api").joinpath(NAME).read_bytes())
    return found


async def show(visit: Visit, query: Query) -> dict[str, Any]:
    """`GET /api/openapi.json`."""
    document = stored()
    info = {**document["info"], "version": __version__}
    return {**document, "info": info, "servers": [{"url": visit.base.rstrip("/") or "/"}]}


ROUTE = ApiPage(
    path=f"/api/{NAME}",
    handler=show,
    summary="Show this description",
    answer=dict[str, Any],
)
