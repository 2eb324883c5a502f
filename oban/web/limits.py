"""`Limits`: the middleware that bounds how much data a request can send."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oban.web import refusals
from oban.web.errors import TooLarge

#: Bytes of the query of an address, and of the body of a request. Args of a job may have some megabytes.
MAX_QUERY = 8 * 1024
#: Characters of its path. Python reads no integer of more than 4,300 digits.
MAX_PATH = 2 * 1024
MAX_BODY = 16 * 1024 * 1024

_TOO_LARGE = f"the request has more than {MAX_BODY // 1024 // 1024} MB"


class Limits:
    """Middleware that refuses what is too long, before anything reads it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if len(scope["path"]) > MAX_PATH:
            await refusals.plain(scope, "There is no such page.\n", 404)(scope, receive, send)
            return
        if len(scope["query_string"]) > MAX_QUERY:
            await refusals.plain(scope, "The address is too long.\n", 414)(scope, receive, send)
            return
        if _announced(scope) > MAX_BODY:
            await refusals.plain(scope, f"{_TOO_LARGE}\n", 413)(scope, receive, send)
            return
        received = 0

        async def receive_some() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY:
                raise TooLarge(_TOO_LARGE)
            return message

        await self._app(scope, receive_some, send)


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        # A WSGI server may pass an empty one for a request without a body.
        if name == b"content-length" and value:
            return int(value) if value.isdigit() and len(value) < 20 else MAX_BODY + 1
    return 0
