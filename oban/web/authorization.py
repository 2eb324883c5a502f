"""`Authorization`: the middleware that decides whether a request may see the dashboard."""

import inspect
import ipaddress
import logging
import re
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from oban import display
from oban.telemetry import Telemetry
from oban.web import audit, refusals
from oban.web.access import Access, Authorize

logger = logging.getLogger("oban.web")

#: Headers by which a proxy tells that it has passed a request on.
PROXY_HEADERS = frozenset(
    {
        "forwarded",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-server",
        "x-real-ip",
        "x-client-ip",
        "x-envoy-external-address",
        "true-client-ip",
        "cf-connecting-ip",
        "fly-client-ip",
    }
)
#: The header Host: a name or an IPv4 address, or an IPv6 address in brackets, and perhaps a port.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::\d{1,5})?")

_ADVICE = (
    "This dashboard serves only its own machine: {}. To let others in, pass authorize to dashboard(), or"
    " start `oban web` with --password-file or --authorize.\n"
)
_REFUSED = "You may not see this dashboard.\n"
_FAILED = "It could not be found out whether you may see this dashboard.\n"


class Authorization:
    """Middleware that puts an `Access` into the state of a request, or refuses it.

    Args:
        app: The application behind.
        authorize: The application's function; without one, only requests from this machine are served.
        telemetry: Is told about refusals.
    """

    def __init__(self, app: ASGIApp, authorize: Authorize | None, telemetry: Telemetry) -> None:
        self._app, self._authorize, self._telemetry = app, authorize, telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # There is nothing to connect to.
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        result = await self._ask(Request(scope, receive))
        if isinstance(result, Response):
            await result(scope, receive, send)
            return
        # A dict of its own: that of the application can be shared by all requests.
        scope["state"] = {**scope.get("state", {}), "access": result}
        scope["state"].pop("visit", None)
        await self._app(scope, receive, send)

    async def _ask(self, request: Request) -> Access | Response:
        if self._authorize is None:
            problem = why_not_local(request)
            if problem is None:
                return Access.full("local")
            return self._refuse(request, not_local(request, problem), problem)
        try:
            result = self._authorize(request)
            if inspect.isawaitable(result):
                result = await result
        except HTTPException as error:
            # Dependencies of applications refuse a request by raising one.
            status = error.status_code if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR else 403
            response = refusals.plain(request.scope, _REFUSED, max(status, 400), dict(error.headers or {}))
            return self._refuse(request, response, "authorize has raised an HTTPException")
        except Exception:
            logger.exception("authorize has failed, so that the dashboard refuses the request")
            return self._refuse(request, refusals.plain(request.scope, _FAILED, 500), "authorize has failed")
        if isinstance(result, Access):
            return result
        if isinstance(result, Response):
            return self._refuse(request, result, "authorize has answered the request itself")
        if result is None:
            return self._refuse(
                request, refusals.plain(request.scope, _REFUSED, 403), "authorize has returned None"
            )
        kind = display.shown(type(result))
        logger.error("authorize must return an Access, a Response or None, not an object of %s", kind)
        return self._refuse(
            request, refusals.plain(request.scope, _FAILED, 500), "authorize has returned something else"
        )

    def _refuse(self, request: Request, response: Response, reason: str) -> Response:
        path: str = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        audit.refusal(self._telemetry, request, path, "", "view", reason)
        return response


def why_not_local(request: HTTPConnection) -> str | None:
    """Why a request is not known to come from this machine, to a name of this machine; None if it is."""
    if any(name in request.headers for name in PROXY_HEADERS):
        return "the request comes through a proxy"
    if request.client is None:
        return "the server does not say where the request comes from, as on a Unix socket"
    if not is_loopback(request.client.host):
        return f"the request comes from {request.client.host}"
    # A page of another site can lead its own name to this machine, and then read what is here.
    hosts = request.headers.getlist("host")
    match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if match is None or not is_loopback(match[1] or match[2]):
        return "the request is for another host name"
    return None


def not_local(request: HTTPConnection, problem: str) -> Response:
    """The answer to a request that `why_not_local` has a problem with."""
    return refusals.plain(request.scope, _ADVICE.format(problem), 403)


def is_loopback(host: str) -> bool:
    """Whether a name or an address is that of this machine, as seen from itself."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
