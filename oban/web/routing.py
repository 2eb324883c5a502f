"""`Page` and `Action`: what a module of pages offers, and the checks before each."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from oban.web import audit, security
from oban.web.access import Permission
from oban.web.errors import Refused
from oban.web.visit import Visit

if TYPE_CHECKING:
    from oban.web.instance import Instance

Handler: TypeAlias = Callable[[Visit], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Page:
    """A GET request, which changes nothing.

    Args:
        path: The path below that of the instance, such as "/jobs/{id:int}".
        handler: Answers a `Visit`.
    """

    path: str
    handler: Handler

    def route(self, instance: "Instance") -> Route:
        async def endpoint(request: Request) -> Response:
            return await self.handler(_visit(request, instance))

        return Route(self.path, endpoint, methods=["GET"])


@dataclass(frozen=True, slots=True)
class Action:
    """A POST request, which changes something: from a form of the dashboard, by a user who may.

    Args:
        path: The path below that of the instance.
        handler: Answers a `Visit`, whose request has the form.
        permission: What the user needs to have.
    """

    path: str
    handler: Handler
    permission: Permission

    def route(self, instance: "Instance") -> Route:
        async def endpoint(request: Request) -> Response:
            visit = _visit(request, instance)
            visit.action = self.permission
            try:
                await self._check(visit)
            except Refused as error:
                _tell_refusal(visit, error)
                raise
            return await self._handle(visit)

        return Route(self.path, endpoint, methods=["POST"])

    async def _check(self, visit: Visit) -> None:
        if not visit.access.allows(self.permission):
            raise Refused(f"{visit.access.user} does not have the permission for this: {self.permission}")
        await _check_origin(visit.request)

    async def _handle(self, visit: Visit) -> Response:
        try:
            response = await self.handler(visit)
        except Refused as error:
            _tell_refusal(visit, error)
            raise
        except BaseException:
            if not visit.is_audited:
                visit.audit(failed=True)
            raise
        if not visit.is_audited:
            visit.audit(failed=response.status_code >= HTTPStatus.BAD_REQUEST)
        return response


def _tell_refusal(visit: Visit, error: Refused) -> None:
    telemetry, user = visit.oban.telemetry, visit.access.user
    audit.refusal(telemetry, visit.request, visit.path, user, visit.action, str(error))


def _visit(request: Request, instance: "Instance") -> Visit:
    visit = Visit(request, instance, request.state.access)
    if token := request.cookies.get(security.CSRF_COOKIE):
        visit.csrf_token = token
    request.state.visit = visit
    return visit


async def _check_origin(request: Request) -> None:
    if not security.is_same_origin(request):
        raise Refused("the request does not come from a page of this dashboard")
    sent = request.headers.get(security.CSRF_HEADER)
    if sent is None:
        form = await request.form()
        sent = form.get(security.CSRF_FIELD)  # type: ignore[assignment]
    if not security.has_token(request.cookies.get(security.CSRF_COOKIE), sent):
        raise Refused("the form is too old, or cookies are blocked: load the page again")
