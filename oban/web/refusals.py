"""The answers to requests that are refused before a page or a route of the API has them."""

from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import PlainTextResponse, Response
from starlette.types import Scope

from oban.web.api.problems import Refusal


def plain(scope: Scope, text: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """A text, or a problem document for a request below `api/`."""
    is_known = status in list(HTTPStatus)
    if is_known and "/api/" in scope["path"].removeprefix(scope.get("root_path", "")):
        return Refusal(HTTPStatus(status), text.strip(), headers=headers).response()
    return PlainTextResponse(text, status, headers)
