"""`Visitor`: visits a dashboard as a browser would, without one."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx2
from selectolax.lexbor import LexborHTMLParser
from starlette.types import ASGIApp

ORIGIN = "http://localhost"


class Visitor:
    """Visits a dashboard as a browser would: with cookies, the tokens of forms, and the headers of a browser.

    Args:
        app: The dashboard.
        client: The address that requests come from.
        base: The path that the dashboard is mounted at.
    """

    def __init__(self, app: ASGIApp, client: str = "127.0.0.1", base: str = "") -> None:
        transport = httpx2.ASGITransport(app=app, client=(client, 50_000))
        self.base = base
        self.http = httpx2.AsyncClient(transport=transport, base_url=ORIGIN)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.http.aclose()

    async def get(self, path: str, **options: Any) -> httpx2.Response:
        return await self.http.get(self.base + path, headers=options.pop("headers", None), **options)

    async def page(self, path: str, status: int = 200) -> LexborHTMLParser:
        """The parsed page at a path."""
        response = await self.get(path)
        assert response.status_code == status, (response.status_code, response.text)
        return LexborHTMLParser(response.text)

    async def token(self) -> str:
        """The token that forms have."""
        if "oban_csrf" not in self.http.cookies:
            await self.get("/")
        found: str = self.http.cookies["oban_csrf"]
        return found

    async def post(
        self, path: str, form: Mapping[str, Any] | None = None, *, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """Send a form of the dashboard."""
        data = {"csrf_token": await self.token(), **(form or {})}
        own = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin", **(headers or {})}
        return await self.http.post(self.base + path, data=data, headers=own)
