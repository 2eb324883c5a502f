"""`dashboard`: makes the ASGI application."""

import functools
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from oban.client import Oban
from oban.errors import ConfigError
from oban.web import job, jobs, live, new_job, nodes, overview, palette, periodic, queues
from oban.web.access import Authorize
from oban.web.authorization import Authorization
from oban.web.errors import WebError
from oban.web.instance import Instance
from oban.web.routing import Action, Page
from oban.web.security import SecurityHeaders

#: Every page and action below the path of an instance.
ROUTES: Sequence[Page | Action] = (
    *overview.ROUTES,
    *jobs.ROUTES,
    *new_job.ROUTES,
    *job.ROUTES,
    *queues.ROUTES,
    *nodes.ROUTES,
    *periodic.ROUTES,
    *palette.ROUTES,
    Page("/events", live.events),
)


def dashboard(*obans: Oban, authorize: Authorize | None = None, live: bool = True) -> "Dashboard":
    """Make a dashboard, an ASGI application, to be mounted in another one or served on its own.

    Args:
        obans: The clients of the instances that it shows, at least one. They need no queues.
        authorize: Called with each request, it returns an `Access`, or None to refuse; it can be async
            (default: only requests from this machine are served, and may do everything).
        live: Whether the server tells open pages when to refresh, by a stream of events for each. Turn it off
            behind a server with a thread for each request: pages ask at an interval then.

    Returns:
        A `Dashboard`.

    Raises:
        ConfigError: There is no client, one is not an `Oban`, or two have the same name and schema.

    Example:
        `app.mount("/oban", dashboard(oban, authorize=lambda request: Access.full(request.user.name)))`
    """
    if not obans:
        raise ConfigError("dashboard needs an Oban")
    for each in obans:
        if not isinstance(each, Oban):
            raise ConfigError(f"dashboard needs an Oban, not {type(each).__name__}")
    return Dashboard(obans, authorize, live=live)


class Dashboard:
    """The ASGI application that `dashboard` makes."""

    def __init__(self, obans: Sequence[Oban], authorize: Authorize | None, *, live: bool) -> None:
        keys = [_key(oban) for oban in obans]
        if len(set(keys)) < len(keys):
            raise ConfigError("two of the clients have the same name: give each Oban its own")
        paths = {key: f"{key}/" if len(keys) > 1 else "" for key in keys}
        self._instances = [Instance(key, oban, paths, live) for key, oban in zip(keys, obans, strict=True)]
        routes: list[BaseRoute] = [
            Mount("/static", StaticFiles(packages=[("oban.web", "static")]), name="static")
        ]
        if len(keys) == 1:
            routes += _routes(self._instances[0])
        else:
            routes += [Mount(f"/{each.key}", routes=_routes(each)) for each in self._instances]
            routes.append(Route("/", functools.partial(_first, keys[0])))
        self._app = Starlette(
            routes=routes,
            middleware=[Middleware(SecurityHeaders), Middleware(Authorization, authorize=authorize)],
            exception_handlers={WebError: _refuse},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def aclose(self) -> None:
        """Close the dashboard's own connections to the databases."""
        for each in self._instances:
            await each.close()


def _key(oban: Oban) -> str:
    options = oban.options
    return f"{options.prefix}.{options.name}" if options.prefix else str(options.name)


def _routes(instance: Instance) -> list[Route]:
    return [each.route(instance) for each in ROUTES]


async def _first(key: str, request: Request) -> Response:
    root: str = request.scope.get("root_path", "")
    return RedirectResponse(f"{root}/{key}/")


async def _refuse(request: Request, error: Any) -> Response:
    visit = getattr(request.state, "visit", None)
    if visit is None:
        return PlainTextResponse(str(error), error.status)
    page: Response = visit.render("error.html", error.status, error=error)
    return page
