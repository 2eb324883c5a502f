"""`Authorization`: the middleware that decides whether a request may see the dashboard."""

import inspect
import ipaddress

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from oban.web.access import Access, Authorize

_ADVICE = "This dashboard serves only its own machine: pass authorize to dashboard() to let others in.\n"


class Authorization:
    """Middleware that puts an `Access` into the state of a request, or refuses it.

    Args:
        app: The application behind.
        authorize: The application's function; without one, only requests from this machine are served.
    """

    def __init__(self, app: ASGIApp, authorize: Authorize | None) -> None:
        self._app, self._authorize = app, authorize

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        result = await self._ask(request)
        if isinstance(result, Response):
            await result(scope, receive, send)
            return
        scope.setdefault("state", {})["access"] = result
        await self._app(scope, receive, send)

    async def _ask(self, request: Request) -> Access | Response:
        if self._authorize is None:
            return Access.full("local") if is_local(request) else PlainTextResponse(_ADVICE, 403)
        result = self._authorize(request)
        if inspect.isawaitable(result):
            result = await result
        if isinstance(result, (Access, Response)):
            return result
        return PlainTextResponse("You may not see this dashboard.\n", 403)


def is_local(request: Request) -> bool:
    """Whether a request comes from this machine, to a name of this machine, through no proxy."""
    if any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-real-ip")):
        return False
    host = request.url.hostname or ""
    return _is_loopback(host) and request.client is not None and _is_loopback(request.client.host)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
