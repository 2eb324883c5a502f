"""The page `queues`: all queues, those that are behind first."""

from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.responses import Response

from oban.web import job_links, queue_actions, queue_figures, queue_page, queue_reasons
from oban.web.queue_figures import QueueFigures
from oban.web.routing import Page
from oban.web.visit import Visit

#: How many queues are shown at first, and at most.
ROWS, MOST_ROWS = 50, 2000

#: The orders of the table: how each is called, and its key.
ORDERS: dict[str, tuple[str, Callable[[QueueFigures], Any]]] = {
    "behind": ("What is behind", lambda queue: (not queue.is_behind, -(queue.oldest_age or 0.0), -queue.due)),
    "name": ("Name", lambda queue: queue.queue),
    "available": ("Available", lambda queue: -_waiting(queue)),
    "executing": ("Executing", lambda queue: -queue.counts["executing"]),
    "rate": ("Completed", lambda queue: -queue.rate),
}


async def show(visit: Visit) -> Response:
    """`GET /queues`."""
    query = visit.request.query_params
    order = query.get("sort", "behind")
    if order not in ORDERS:
        order = "behind"
    wanted = query.get("q", "").strip()
    most = MOST_ROWS if query.get("rows") == "all" else ROWS
    async with visit.read() as session:
        figures = await queue_figures.read(visit.oban, session)
    found = [queue for queue in figures.queues if wanted.lower() in queue.queue.lower()]
    found.sort(key=ORDERS[order][1])
    return visit.render(
        "queues.html",
        figures=figures,
        rows=[(queue, queue_reasons.find(queue, figures)) for queue in found[:most]],
        matching=len(found),
        order=order,
        orders={name: label for name, (label, _) in ORDERS.items()},
        wanted=wanted,
        behind=sum(queue.is_behind for queue in figures.queues),
        jobs_link=partial(job_links.jobs, visit),
    )


def _waiting(queue: QueueFigures) -> int:
    return queue.counts["available"]


ROUTES = (Page("/queues", show), *queue_page.ROUTES, *queue_actions.ROUTES)
