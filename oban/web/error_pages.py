"""`ErrorPages`: the middleware that answers errors with a page."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oban.errors import (
    DatabaseUnavailable,
    JobNotFound,
    ObanError,
    PeriodicNotFound,
    SchemaMissing,
    WrongLoop,
)
from oban.log_limits import LogLimit
from oban.web.api import problems
from oban.web.errors import Busy, NoSchema, NotFound, Unavailable, WebError
from oban.web.instance import Instance
from oban.web.visit import Visit

logger = logging.getLogger("oban.web")

#: What a browser should wait for before it tries again, in seconds.
RETRY_AFTER = 5
_log_limit = LogLimit()
_UNEXPECTED = "The dashboard has failed. Its log says why."
_TEXTS = {
    HTTPStatus.NOT_FOUND: "There is no such page.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This address does not take such a request.",
}


class Unexpected(WebError):
    """An error that nobody has foreseen. The log has its traceback, the page no detail."""

    status = 500


class _Http(WebError):
    """An error of Starlette."""

    def __init__(self, error: HTTPException) -> None:
        super().__init__(_TEXTS.get(HTTPStatus(error.status_code), error.detail))
        self.status = error.status_code
        self.headers = error.headers or {}


class ErrorPages:
    """Middleware that answers an error with a page of the instance, or with a problem document below `/api`.

    Args:
        app: The application behind.
        instances: The instances of the dashboard.
    """

    def __init__(self, app: ASGIApp, instances: list[Instance]) -> None:
        self._app, self._instances = app, instances

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Routes change it.
        root: str = scope.get("root_path", "")
        started = False

        async def send_noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        except Exception as error:
            shown = as_web_error(error)
            if isinstance(shown, Unexpected):
                logger.exception("the dashboard has failed at %s %r", scope["method"], scope["path"])
            if started:
                raise
            response = self._page(scope, root, shown)
            await response(scope, receive, send)

    def _page(self, scope: Scope, root: str, error: WebError) -> Response:
        visit = scope["state"].get("visit") or self._visit(scope, root)
        headers: Mapping[str, str] = getattr(error, "headers", {})
        if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers = {"Retry-After": str(RETRY_AFTER)}
        if visit.path.startswith("/api/"):
            response = problems.of_error(error).response()
        else:
            response = visit.render("error.html", error.status, error=error)
        response.headers.update(headers)
        return response

    def _visit(self, scope: Scope, root: str) -> Visit:
        """A visit for a request that no page has taken: of the instance in the address, or the first."""
        rest = scope["path"].removeprefix(root).lstrip("/")
        instance = next(
            (each for each in self._instances if rest.startswith(each.paths[each.key])), self._instances[0]
        )
        path = f"{root.rstrip('/')}/{instance.paths[instance.key]}".rstrip("/")
        request = Request({**scope, "root_path": path})
        visit = Visit(request, instance, scope["state"]["access"])
        visit.use_cookie()
        return visit


def as_web_error(error: Exception) -> WebError:
    """What the dashboard says about an error."""
    if isinstance(error, WebError):
        return error
    if isinstance(error, HTTPException):
        return _Http(error)
    if isinstance(error, (JobNotFound, PeriodicNotFound)):
        return NotFound(_sentence(error))
    if isinstance(error, SchemaMissing):
        return NoSchema(_sentence(error))
    if isinstance(error, DatabaseUnavailable):
        # The message names the host and the user of the database, which are not for every visitor.
        if count := _log_limit.count():
            logger.warning("%s (%s since the last report)", error, count)
        return Unavailable("The database cannot be reached. The log says why.")
    if isinstance(error, ObanError) and not isinstance(error, WrongLoop):
        # The library's own message about values that it does not take.
        return WebError(_sentence(error))
    if isinstance(error, TimeoutError):
        return Busy("The dashboard has not finished in time. Try again.")
    return Unexpected(_UNEXPECTED)


def _sentence(error: Any) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}"
