"""A dashboard that a server serves from a thread, for programs that use it from outside."""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from sqlalchemy import URL
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from oban import Oban
from oban.web import dashboard
from oban.web.access import Authorize


class _Server(uvicorn.Server):
    """A server that tells when it has started or failed."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(uvicorn.Config(app, port=0, log_config=None, ws="none", lifespan="on"))
        self.ready = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.ready.set()


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """Serve an application on a port of this machine. Returns its address."""
    server = _Server(app)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        assert server.ready.wait(60)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(60)


def of_database(url: URL, authorize: Authorize | None = None) -> Starlette:
    """An application with a dashboard at `/oban`, whose client belongs to the event loop of the server."""
    made: list[ASGIApp] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with Oban(url) as oban:
            app = dashboard(oban, authorize=authorize)
            made.append(app)
            yield
            await app.aclose()

    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        await made[0](scope, receive, send)

    return Starlette(routes=[Mount("/oban", app=mounted)], lifespan=lifespan)
