"""The server of `oban web`."""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import uvicorn

from oban.client import Oban
from oban.web import Authorize, Dashboard, dashboard

#: Seconds that requests can take to end after a signal.
GRACE = 3
#: Connections that wait to be accepted, and how many can be open.
BACKLOG = 256
CONNECTIONS = 1000


def serve(
    clients: Callable[[], Awaitable[list[Oban]]],
    authorize: Authorize | None,
    *,
    host: str,
    port: int,
    root_path: str,
    forwarded_allow_ips: str,
) -> None:
    """Serve the dashboard of some clients until a signal arrives."""
    listener = _listen(host, port)

    async def run() -> None:
        obans = await clients()
        try:
            app = dashboard(*obans, authorize=authorize)
            config = uvicorn.Config(
                app,
                root_path=f"/{root_path.strip('/')}" if root_path.strip("/") else "",
                proxy_headers=True,
                forwarded_allow_ips=forwarded_allow_ips,
                server_header=False,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                limit_concurrency=CONNECTIONS,
                timeout_graceful_shutdown=GRACE,
            )
            await _Server(config, app, _address(listener, config.root_path)).serve([listener])
        finally:
            for oban in obans:
                await oban.engine.dispose()

    with listener:
        asyncio.run(run())


class _Server(uvicorn.Server):
    """A server that ends the streams of events first, which would otherwise never end."""

    def __init__(self, config: uvicorn.Config, app: Dashboard, address: str) -> None:
        super().__init__(config)
        self._dashboard, self._address = app, address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            click.echo(f"The dashboard is at {self._address} (Ctrl-C stops it).")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._dashboard.end_streams()
        await super().shutdown(sockets)
        await self._dashboard.aclose()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The base class would raise the signals again at the end, which is not an error here.
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


def _address(listener: socket.socket, root_path: str) -> str:
    name: Any = listener.getsockname()
    host = f"[{name[0]}]" if listener.family == socket.AF_INET6 else name[0]
    return f"http://{host}:{name[1]}{root_path}/"
