"""A dashboard of a running shop, served to real browsers by a thread of its own."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import uvicorn
from sqlalchemy import URL
from starlette.requests import HTTPConnection

from oban.web import Access, dashboard
from tests.support import shop
from tests.support.shop import Shop
from tests.support.waiting import slowdown

T = TypeVar("T")
#: The header that tells who visits the dashboard, as a proxy that authenticates would send it.
USER = "x-user"
#: What each of them may.
USERS = {
    "ada": Access.full("ada"),
    "viewer": Access.read_only("viewer"),
    "support": Access(user="support", permissions=["retry_jobs"], hidden=["args", "meta", "errors", "log"]),
}


class LiveDashboard:
    """A dashboard that is served on a free port.

    Attributes:
        shop: What it shows.
        origin: Its address, without a slash at its end.
    """

    def __init__(self, shop: Shop, origin: str, loop: asyncio.AbstractEventLoop) -> None:
        self.shop, self.origin, self._loop = shop, origin, loop

    def run(self, awaitable: Awaitable[T]) -> T:
        """Await something on the event loop of the shop, from the thread of a test."""

        async def main() -> T:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(main(), self._loop).result(30 * slowdown())


def _access(request: HTTPConnection) -> Access | None:
    return USERS.get(request.headers.get(USER, "ada"))


@contextmanager
def serving(url: URL) -> Iterator[LiveDashboard]:
    """Run a shop on a database with the schema, and serve its dashboard."""
    ready, stopped = threading.Event(), asyncio.Event()
    made: list[LiveDashboard] = []
    failures: list[BaseException] = []

    async def main() -> None:
        async with shop.running(url) as running:
            app = dashboard(running.oban, authorize=_access)
            # Whether a request is ended in time is tested elsewhere.
            app.instances[0].sessions.timeout *= slowdown()
            with socket.create_server(("127.0.0.1", 0)) as listening:
                server = uvicorn.Server(
                    uvicorn.Config(
                        app, log_level="warning", lifespan="off", ws="none", timeout_graceful_shutdown=1
                    )
                )
                task = asyncio.create_task(server.serve(sockets=[listening]))
                origin = f"http://127.0.0.1:{listening.getsockname()[1]}"
                made.append(LiveDashboard(running, origin, asyncio.get_running_loop()))
                ready.set()
                await stopped.wait()
                server.should_exit = True
                await task
                await app.aclose()

    def target() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=target, name="dashboard")
    thread.start()
    ready.wait()
    try:
        if failures:
            raise failures[0]
        yield made[0]
    finally:
        if made:
            made[0]._loop.call_soon_threadsafe(stopped.set)
        thread.join()
    if failures:
        raise failures[0]
