"""A TCP port that leads to a PostgreSQL server, and can fail as a server, a network or a firewall does."""

import asyncio
import contextlib
from typing import Self

from sqlalchemy import URL


class Relay:
    """`async with Relay(url) as relay:` - `relay.url` is the same database through a port of this machine."""

    def __init__(self, url: URL) -> None:
        self.target = url
        #: Whether new connections are closed at once, as where no server listens.
        self.refuses = False
        #: Whether the relay drops all data without closing a connection.
        self.swallows = False
        self._open: set[object] = set()
        self._forgotten: set[object] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> URL:
        """The URL of the same database through the relay."""
        return self.target.set(host="127.0.0.1", port=self._port, query={})

    def forget(self) -> None:
        """Drop whatever is sent on the present connections from now on, and tell neither side."""
        self._forgotten |= self._open

    def cut(self) -> None:
        """Close the present connections."""
        for task in self._tasks:
            task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        me = object()
        self._open.add(me)
        task = asyncio.create_task(self._connect(me, reader, writer))
        self._tasks.add(task)
        # Also if the task is cancelled before it begins.
        task.add_done_callback(lambda _: writer.close())

    async def _connect(self, me: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                if me not in self._forgotten and not self.swallows:
                    target.write(data)
            if me not in self._forgotten:
                target.close()

        url = self.target
        if folder := url.query.get("host"):
            back, forth = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{url.port or 5432}")
        else:
            back, forth = await asyncio.open_connection(url.host, url.port or 5432)
        try:
            with contextlib.suppress(OSError):
                await asyncio.gather(copy(reader, forth), copy(back, writer))
        finally:
            forth.close()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1")
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
