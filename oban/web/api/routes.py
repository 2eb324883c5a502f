"""All routes of the API."""

from oban.web.api import instance, job_changes, jobs, new_jobs, openapi, periodic, queues
from oban.web.api.routing import ApiFallback, ApiRoute

#: The routes that the document describes.
API_ROUTES: tuple[ApiRoute, ...] = (
    *jobs.ROUTES,
    *new_jobs.ROUTES,
    *job_changes.ROUTES,
    *instance.ROUTES,
    *queues.ROUTES,
    *periodic.ROUTES,
)
_ALL = (*API_ROUTES, openapi.ROUTE)
ROUTES: tuple[ApiRoute | ApiFallback, ...] = (*_ALL, ApiFallback(_ALL))
