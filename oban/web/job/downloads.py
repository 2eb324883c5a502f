"""The documents of a job as files, without redacted values and for those who may see them."""

from starlette.responses import Response

from oban.web.errors import NotFound, Refused
from oban.web.job import documents, loading
from oban.web.routing import Page
from oban.web.visit import Visit

#: The documents of a job that can be downloaded, and the fields of which each is a part.
NAMES = {"args": ("args",), "meta": ("meta",), "errors": ("errors",), "recorded": ("meta", "recorded")}


async def show(visit: Visit) -> Response:
    """`GET /jobs/{id}/{name}.json`."""
    name = visit.request.path_params["name"]
    if name not in NAMES:
        raise NotFound("A job has no such document.")
    if not all(map(visit.access.shows, NAMES[name])):
        raise Refused(f"{visit.access.user} does not see the {name} of jobs")
    job, _ = await loading.job(visit)
    headers = {"Content-Disposition": f'attachment; filename="job-{job.id}-{name}.json"'}
    text = documents.pretty(documents.value(job, name))
    return Response(text, media_type="application/json", headers=headers)


ROUTES = (Page("/jobs/{id:int}/{name:str}.json", show),)
