"""`Page` and `Action`: what a module of pages offers, and the checks before each."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from oban.web import security
from oban.web.access import Permission
from oban.web.errors import Refused
from oban.web.limits import MAX_BODY
from oban.web.visit import Visit

if TYPE_CHECKING:
    from oban.web.instance import Instance

Handler: TypeAlias = Callable[[Visit], Coroutine[Any, Any, Response]]


#: Seconds that a handler can take: several sessions, or something else than the database.
TIMEOUT = 10.0


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
            visit = _visit(request, instance)
            async with asyncio.timeout(TIMEOUT):
                response = await _while_connected(request, self.handler(visit))
            if request.method == "HEAD" and hasattr(response, "body_iterator"):
                # A stream would not end.
                return Response(status_code=response.status_code, media_type=response.media_type)
            return response

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
                visit.audit_refusal(error)
                raise
            return await self._handle(visit)

        return Route(self.path, endpoint, methods=["POST"])

    async def _check(self, visit: Visit) -> None:
        visit.require(self.permission)
        await _check_origin(visit.request)

    async def _handle(self, visit: Visit) -> Response:
        try:
            async with asyncio.timeout(TIMEOUT):
                response = await self.handler(visit)
        except Refused as error:
            visit.audit_refusal(error)
            raise
        except BaseException:
            if not visit.is_audited:
                visit.audit(failed=True)
            raise
        if not visit.is_audited:
            visit.audit(failed=response.status_code >= HTTPStatus.BAD_REQUEST)
        return response


async def _while_connected(request: Request, handling: Coroutine[Any, Any, Response]) -> Response:
    """Answer a request, but give up when the client disconnects."""
    answer = asyncio.create_task(handling)
    disconnect = asyncio.create_task(_disconnect(request))
    try:
        await asyncio.wait({answer, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        return Response(status_code=HTTPStatus.NO_CONTENT)
    finally:
        for task in (answer, disconnect):
            task.cancel()
        # What a query needs to end, if it has to be interrupted.
        await asyncio.gather(answer, disconnect, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _visit(request: Request, instance: "Instance") -> Visit:
    visit = Visit(request, instance, request.state.access)
    visit.use_cookie()
    request.state.visit = visit
    return visit


async def _check_origin(request: Request) -> None:
    if problem := security.origin_problem(request):
        raise Refused(f"Nothing was changed: {problem}.")
    sent = request.headers.get(security.CSRF_HEADER)
    if sent is None:
        form = await request.form(max_files=0, max_part_size=MAX_BODY)
        sent = form.get(security.CSRF_FIELD)  # type: ignore[assignment]
    if not security.has_token(request.cookies.get(security.CSRF_COOKIE), sent):
        raise Refused(
            "Nothing was changed: the form is too old, or cookies are blocked. Load the page again."
        )
