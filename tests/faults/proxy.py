"""A TCP proxy in front of PostgreSQL that can cut connections, also at the worst moment."""

import asyncio
import contextlib
from struct import unpack
from typing import Literal, Self

from sqlalchemy import URL

Moment = Literal["request", "answer", "after"]
_ENCRYPTION = (80877103, 80877104)
_WRITES = (b"INSERT", b"UPDATE", b"DELETE", b"WITH", b"COMMIT")


class Proxy:
    """`async with Proxy(url) as proxy:` - `proxy.through(url)` is the same database through the proxy.

    `cut()` ends all connections. `refusing = True` ends new ones at once. `flowing.clear()` holds all data
    back, like a network that loses packets, until `flowing.set()`. `cut_commits` makes it cut at the next
    commits, and `cuts` counts those cuts.
    """

    def __init__(self, url: URL) -> None:
        self.host, self.port = url.host or "127.0.0.1", url.port or 5432
        self.refusing = False
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.cuts = 0
        self._armed: list[tuple[Moment, bytes]] = []
        self._server: asyncio.Server | None = None
        self._connections: dict[Connection, asyncio.Task[None]] = {}

    @property
    def armed(self) -> int:
        """How many of the requested cuts are still to come."""
        return len(self._armed)

    def through(self, url: URL) -> URL:
        """A URL of the server that leads through the proxy."""
        assert self._server is not None
        return url.set(host="127.0.0.1", port=self._server.sockets[0].getsockname()[1], query={})

    def cut(self) -> int:
        """End all connections, and return how many there were."""
        for connection in self._connections:
            connection.abort()
        return len(self._connections)

    def cut_commits(self, when: Moment, count: int, containing: bytes = b"") -> None:
        """Cut at the next `count` commits of transactions with a statement that contains a string.

        A commit is COMMIT, or a statement that writes outside of a transaction. `when` is "request" if the
        server must not get it, "answer" if the client must not get the server's answer, and "after" if
        the client gets the answer before the cut.
        """
        self._armed += [(when, containing)] * count

    def fires(self, moments: tuple[Moment, ...], statements: set[bytes]) -> Moment | None:
        """Whether a requested cut is due now. If so, it counts as made."""
        for index, (when, containing) in enumerate(self._armed):
            if when in moments and any(containing in statement for statement in statements):
                del self._armed[index]
                self.cuts += 1
                return when
        return None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        tasks = list(self._connections.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        connection = Connection(self, reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._connections[connection] = task
        try:
            await connection.run()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            connection.abort()
            del self._connections[connection]


class Connection:
    """One client, with its own connection to the server."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.reader, self.writer = reader, writer
        self.to_server: asyncio.StreamWriter | None = None
        #: The SQL of prepared statements by name, and the SQL that ran in this transaction.
        self.prepared: dict[bytes, bytes] = {}
        self.ran: set[bytes] = set()
        self.idle = True
        #: Whether the next answer is that to a commit.
        self.committing = False

    def abort(self) -> None:
        """End both sides at once."""
        for writer in (self.writer, self.to_server):
            if writer is not None:
                writer.transport.abort()

    async def run(self) -> None:
        first = await self._greeting()
        from_server, self.to_server = await asyncio.open_connection(self.proxy.host, self.proxy.port)
        self.to_server.write(first)
        both = {
            asyncio.create_task(self._requests(self.to_server)),
            asyncio.create_task(self._answers(from_server)),
        }
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _greeting(self) -> bytes:
        while True:
            head = await self.reader.readexactly(4)
            rest = await self.reader.readexactly(unpack("!I", head)[0] - 4)
            if unpack("!I", rest[:4])[0] not in _ENCRYPTION:
                return head + rest
            self.writer.write(b"N")

    async def _requests(self, to_server: asyncio.StreamWriter) -> None:
        while True:
            kind, body, whole = await _message(self.reader)
            await self.proxy.flowing.wait()
            if kind == b"P":
                name, statement, *_ = body.split(b"\0", 2)
                self.prepared[name] = statement
            elif kind == b"B":
                self.ran.add(self.prepared.get(body.split(b"\0", 2)[1], b""))
            elif kind == b"Q":
                self.ran.add(body.rstrip(b"\0"))
            if kind in (b"Q", b"S") and self.ran:
                self.committing = self._commits()
                if self.committing and self.proxy.fires(("request",), self.ran):
                    return
            to_server.write(whole)
            await to_server.drain()

    def _commits(self) -> bool:
        starts = {statement.lstrip()[:6].upper() for statement in self.ran}
        return b"COMMIT" in starts or (self.idle and any(start.startswith(_WRITES) for start in starts))

    async def _answers(self, from_server: asyncio.StreamReader) -> None:
        held: list[bytes] = []
        failed = False
        while True:
            kind, body, whole = await _message(from_server)
            await self.proxy.flowing.wait()
            held.append(whole)
            failed |= kind == b"E"
            if self.committing and kind != b"Z":
                continue
            fired: Moment | None = None
            if kind == b"Z":
                if self.committing and not failed:
                    fired = self.proxy.fires(("answer", "after"), self.ran)
                self.idle, self.committing, failed = body == b"I", False, False
                if self.idle:
                    self.ran.clear()
            if fired == "answer":
                return
            self.writer.write(b"".join(held))
            held.clear()
            await self.writer.drain()
            if fired == "after":
                # Let the answer reach the client before the connection ends.
                self.writer.close()
                with contextlib.suppress(OSError):
                    await self.writer.wait_closed()
                return


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes, bytes]:
    head = await reader.readexactly(5)
    body = await reader.readexactly(unpack("!I", head[1:])[0] - 4)
    return head[:1], body, head + body
