"""What the command palette finds: a job by its id, queues and workers."""

from collections.abc import Iterator

from sqlalchemy import select
from starlette.responses import JSONResponse, Response

from oban.models import Job
from oban.web import texts
from oban.web.routing import Page
from oban.web.visit import Visit

#: Characters of a search, the newest jobs whose queues and workers are searched, and results of each kind.
QUERY, JOBS, RESULTS = 100, 2000, 8
#: The largest id that a database can hold.
_LARGEST = 2**63 - 1


async def find(visit: Visit) -> Response:
    """`GET /palette?q=`: results as JSON, each with a label, a hint and an address."""
    query = visit.request.query_params.get("q", "")[:QUERY].strip().lower()
    results: list[dict[str, str]] = []
    if query:
        results += _job(visit, query)
        newest = select(Job.queue, Job.worker).order_by(Job.id.desc()).limit(JOBS)
        async with visit.read() as session:
            rows = (await session.execute(newest)).all()
        for hint, names in (("Queue", {row[0] for row in rows}), ("Worker", {row[1] for row in rows})):
            field = hint.lower()
            for name in list(_matching(names, query))[:RESULTS]:
                address = visit.link("jobs", **{field: name})
                results.append({"label": texts.visible(name, 200), "hint": hint, "href": address})
    return JSONResponse({"results": results})


def _job(visit: Visit, query: str) -> list[dict[str, str]]:
    digits = query.removeprefix("job").lstrip(" #")
    if not (digits.isascii() and digits.isdigit()) or int(digits) > _LARGEST:
        return []
    return [{"label": f"Job {int(digits)}", "hint": "Job", "href": visit.link(f"jobs/{int(digits)}")}]


def _matching(names: set[str], query: str) -> Iterator[str]:
    # On SQLite, a column can hold a value of any type.
    matching = [name for name in map(texts.plain, names) if query in name.lower()]
    return iter(sorted(matching, key=lambda name: (not name.lower().startswith(query), len(name), name)))


ROUTES = (Page("/palette", find),)
