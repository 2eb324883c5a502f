"""`ApiPage` and `ApiAction`: what a module of the API offers, and the checks before each."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError, to_json
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from oban import display
from oban.web import security
from oban.web.access import Permission
from oban.web.api import bodies, problems
from oban.web.api.bodies import Body, Query
from oban.web.api.problems import Refusal
from oban.web.errors import Refused
from oban.web.routing import TIMEOUT
from oban.web.visit import Visit

if TYPE_CHECKING:
    from oban.web.instance import Instance


class _JobId(Convertor[int]):
    """An id in a path: as many digits as one can have, so that it is always a number."""

    regex = "[0-9]{1,19}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("job_id", _JobId())


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRoute(ABC):
    """A request to the API, and its description.

    Args:
        path: The path below that of the instance, such as "/api/jobs/{id:job_id}".
        handler: Answers a `Visit`, with the query or the body if there is one. What it returns is encoded as
            `answer`.
        summary: What it does, in a few words.
        answer: The type of the answer.
        status: The status of the answer.
        about: What else there is to say about it.
        example: An example of the body.
    """

    path: str
    handler: Callable[..., Awaitable[Any]]
    summary: str
    answer: Any
    status: HTTPStatus = HTTPStatus.OK
    about: str = ""
    example: Mapping[str, Any] | None = None
    method: str = field(init=False, default="GET")

    @abstractmethod
    async def _answer(self, visit: Visit) -> Any:
        """Check the request, and call the handler."""

    def route(self, instance: "Instance") -> Route:
        async def endpoint(request: Request) -> Response:
            visit = Visit(request, instance, request.state.access)
            request.state.visit = visit
            try:
                async with asyncio.timeout(TIMEOUT):
                    value = await self._answer(visit)
                content = _json(self.answer, value)
            except Exception as error:
                return problems.of_error(error).response()
            headers = {"Link": f'<{link}>; rel="next"'} if (link := getattr(value, "next", None)) else None
            return Response(content, self.status, headers, media_type="application/json")

        return Route(self.path, endpoint, methods=[self.method])


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiPage(ApiRoute):
    """A GET request, which changes nothing.

    Args:
        query: The type of its query.
    """

    query: type[Query] = Query

    async def _answer(self, visit: Visit) -> Any:
        return await self.handler(visit, bodies.query(visit.request, self.query))


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiAction(ApiRoute):
    """A POST request with a JSON body, which changes something, by a user who may.

    A page of another site cannot make a browser send one. The type of the body needs a preflight request,
    which is never allowed, and what the browser says about the origin is checked as well. Programs that are
    no browsers say nothing about it.

    Args:
        permission: What the user needs to have.
        body: The type of its body.
    """

    permission: Permission
    body: type[Body] = Body
    method: str = field(init=False, default="POST")

    async def _answer(self, visit: Visit) -> Any:
        visit.action = self.permission
        try:
            self._check(visit)
        except (Refused, Refusal) as error:
            visit.audit_refusal(error)
            raise
        body = await bodies.body(visit.request, self.body)
        try:
            value = await self.handler(visit, body)
        except Exception:
            if not visit.is_audited:
                visit.audit(failed=True)
            raise
        if not visit.is_audited:
            visit.audit()
        return value

    def _check(self, visit: Visit) -> None:
        visit.require(self.permission)
        headers = visit.request.headers
        is_browser = "origin" in headers or "sec-fetch-site" in headers
        if is_browser and (problem := security.origin_problem(visit.request)):
            raise Refused(f"Nothing was changed: {problem}.")
        bodies.check_type(visit.request)


def _json(type_: Any, value: Any) -> bytes:
    """An answer as JSON."""
    try:
        return _adapter(type_).dump_json(value)
    except PydanticSerializationError:
        # SQLite can have bytes in any column.
        return to_json(value, bytes_mode="base64", inf_nan_mode="null", fallback=display.shown)


@cache
def _adapter(type_: Any) -> TypeAdapter[Any]:
    return TypeAdapter(type_)


@dataclass(frozen=True, slots=True)
class ApiFallback:
    """Refuses every other request below `api/`, with a problem document.

    Args:
        routes: The routes of the API.
    """

    routes: Sequence[ApiRoute]
    path: str = "/api/{rest:path}"

    def route(self, instance: "Instance") -> Route:
        return Route(self.path, _Unknown([each.route(instance) for each in self.routes]))


class _Unknown:
    """An ASGI application, because a route of a function would have a list of methods."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        methods: set[str] = set()
        for route in self._routes:
            # The scope has the parameters of this route, which `matches` adds to a copy.
            if route.matches(scope)[0] is Match.PARTIAL:
                methods |= route.methods or set()
        if methods:
            allowed = ", ".join(sorted(methods))
            refusal = Refusal(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"{scope['method'][:20]} is not possible here: use {allowed}.",
                headers={"Allow": allowed},
            )
        else:
            refusal = Refusal(
                HTTPStatus.NOT_FOUND,
                "There is nothing here; api/openapi.json lists all addresses.",
            )
        await refusal.response()(scope, receive, send)
