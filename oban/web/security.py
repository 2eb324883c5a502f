"""What every response and every change has: security headers, a token and a check of the origin."""

import hmac
import re
import secrets
from typing import TypeGuard
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CSRF_COOKIE = "oban_csrf"
CSRF_FIELD = "csrf_token"
CSRF_HEADER = "X-CSRF-Token"
_TOKEN = re.compile(r"[\w-]{43}", re.ASCII)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " font-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class SecurityHeaders:
    """Middleware that adds the headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
                if scope["scheme"] == "https":
                    headers["Strict-Transport-Security"] = "max-age=63072000"
            await send(message)

        await self._app(scope, receive, send_with_headers)


def new_token() -> str:
    """A token for the cookie and the forms of a browser."""
    return secrets.token_urlsafe(32)


def is_token(value: str | None) -> TypeGuard[str]:
    """Whether a cookie has a token that the dashboard can have made."""
    return value is not None and _TOKEN.fullmatch(value) is not None


def has_token(cookie: str | None, sent: object) -> bool:
    """Whether a form has the token of the browser's cookie."""
    if not is_token(cookie) or not isinstance(sent, str):
        return False
    # It refuses text that is not ASCII.
    return hmac.compare_digest(cookie.encode(), sent.encode(errors="replace"))


def origin_problem(request: HTTPConnection) -> str | None:
    """Why a request that changes something is not known to come from a page of the dashboard; None if it is.

    Browsers tell that in headers which no page can set. A request without them is refused.
    """
    headers = request.headers
    site, origin, host = headers.get("sec-fetch-site"), headers.get("origin"), headers.get("host")
    if site not in (None, "same-origin"):
        return "the request comes from another site"
    if origin is None:
        return None if site else "the request does not say which site it comes from"
    if origin_host(origin) == host:
        return None
    if site and origin_host(origin):
        return (
            f"the request was made at {origin}, but has arrived for the host {host}: a proxy in between"
            " must pass on the header Host"
        )
    return "the request comes from another site"


def origin_host(origin: str) -> str | None:
    """The host and the port of an origin; None for one that is opaque or broken."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc if parts.scheme in ("http", "https") and parts.netloc else None
