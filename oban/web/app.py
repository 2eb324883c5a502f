"""`dashboard`: makes the ASGI application."""

import asyncio
import functools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from oban.client import Oban
from oban.errors import ConfigError
from oban.web import (
    instance_names,
    job,
    jobs,
    live,
    new_job,
    nodes,
    overview,
    palette,
    periodic,
    queues,
    rendering,
    visit,
)
from oban.web.access import Authorize
from oban.web.api import routes as api
from oban.web.api.routing import ApiFallback, ApiRoute
from oban.web.authorization import Authorization
from oban.web.error_pages import ErrorPages
from oban.web.instance import Instance
from oban.web.limits import Limits
from oban.web.routing import Action, Page
from oban.web.security import SecurityHeaders
from oban.web.static_files import Static

#: Every page and action below the path of an instance.
ROUTES: Sequence[Page | Action | ApiRoute | ApiFallback] = (
    *overview.ROUTES,
    *jobs.ROUTES,
    *new_job.ROUTES,
    *job.ROUTES,
    *queues.ROUTES,
    *nodes.ROUTES,
    *periodic.ROUTES,
    *palette.ROUTES,
    Page("/events", live.events),
    *api.ROUTES,
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
        ConfigError: There is no client, one is not an `Oban`, or two are of the same instance.

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
        self._is_compiled = False
        keys = instance_names.keys(obans)
        paths = {key: f"{key}/" if len(keys) > 1 else "" for key in keys}
        self.instances: list[Instance] = [
            Instance(key, oban, paths, live) for key, oban in zip(keys, obans, strict=True)
        ]
        routes: list[BaseRoute] = [Mount("/static", Static(), name="static")]
        if len(keys) == 1:
            routes += _routes(self.instances[0])
        else:
            routes += [Mount(f"/{each.key}", routes=_routes(each)) for each in self.instances]
            routes.append(Route("/", functools.partial(_first, keys[0])))
        self._app = Starlette(
            routes=routes,
            middleware=[
                Middleware(SecurityHeaders),
                Middleware(Limits),
                Middleware(Authorization, authorize=authorize, telemetry=obans[0].telemetry),
                Middleware(ErrorPages, instances=self.instances),
            ],
            exception_handlers={HTTPException: _raise},
            lifespan=self._lifespan,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._is_compiled and scope["type"] == "http":
            # This takes half a second, for which the event loop of the application must not stop.
            await asyncio.to_thread(rendering.compile_templates)
            self._is_compiled = True
        await self._app(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield
        await self.aclose()

    async def end_streams(self) -> None:
        """End the streams of events, which a server that stops would otherwise wait for."""
        for each in self.instances:
            await each.live.close()

    async def aclose(self) -> None:
        """End the streams of events, and close the dashboard's own connections to the databases.

        A server that serves nothing but the dashboard calls this at its end. An application that mounts it
        has to, in its own lifespan.
        """
        for each in self.instances:
            await each.close()


def _routes(instance: Instance) -> list[Route]:
    return [each.route(instance) for each in ROUTES]


async def _first(key: str, request: Request) -> Response:
    root = visit.mount_path(request.scope)
    return RedirectResponse(f"{root}/{key}/")


async def _raise(_: Request, error: Exception) -> Response:
    # For `ErrorPages`.
    raise error
