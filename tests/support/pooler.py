"""A pooler in transaction mode, like PgBouncer, that switches server connections as often as possible.

It speaks as much of PostgreSQL's protocol as it needs. It answers the startup itself, gives each
transaction the server connection that has been idle longest, and takes the connection back at a
`ReadyForQuery` with the status "idle". It drops notifications. Without `servers` it is in session mode:
each client has its own server connection, and receives notifications only if `deliver` is set.
"""

import asyncio
import contextlib
import itertools
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from psycopg import pq
from sqlalchemy import URL

SSL, GSS, CANCEL = 80877103, 80877104, 80877102
#: The startup parameters that PgBouncer accepts; it refuses a client that sends another one.
STARTUP = {"user", "database", "client_encoding", "datestyle", "timezone", "standard_conforming_strings"}
#: The messages that the server answers with ReadyForQuery: Query, Sync, FunctionCall.
ENDING = b"QSF"
REPORTED = (
    *(b"server_version", b"server_encoding", b"client_encoding", b"application_name", b"is_superuser"),
    *(b"session_authorization", b"DateStyle", b"IntervalStyle", b"TimeZone", b"integer_datetimes"),
    b"standard_conforming_strings",
)
_numbers = itertools.count(1)


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The type and the body of the next message."""
    head = await reader.readexactly(5)
    return head[:1], await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)


@dataclass(eq=False)
class Server:
    """One connection to PostgreSQL, ready for a transaction."""

    connection: pq.abc.PGconn
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def parameters(self) -> bytes:
        """The ParameterStatus messages that a server sends after the startup."""
        named = ((name, self.connection.parameter_status(name)) for name in REPORTED)
        return b"".join(message(b"S", name + b"\0" + value + b"\0") for name, value in named if value)

    def close(self) -> None:
        self.writer.close()
        self.connection.finish()


@dataclass(eq=False)
class Client:
    """A connection of the application, and the server connection of its current transaction."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    key: bytes
    server: Server | None = None
    pending: int = 0
    unanswered: bool = False
    answers: asyncio.Task[None] | None = None


class Pooler:
    """Listens on 127.0.0.1; `url` leads through it. `served` counts transactions per server connection."""

    def __init__(self, target: URL, servers: int | None, deliver: bool = False) -> None:
        self.target = target
        self.size = servers
        self.deliver = deliver
        self.served: dict[Server, int] = {}
        self.dropped = 0
        self._free: asyncio.Queue[Server] = asyncio.Queue()
        self._clients: dict[bytes, Client] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._listener = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        port = self._listener.sockets[0].getsockname()[1]
        self.url = self.target.set(host="127.0.0.1", port=port, query={})
        for _ in range(self.size or 0):
            self._free.put_nowait(await self._connect())

    async def stop(self) -> None:
        self._listener.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in list(self.served):
            server.close()

    async def _connect(self) -> Server:
        # libpq connects, so every kind of authentication works; then we take over its socket.
        plain = {"sslmode": "disable", "gssencmode": "disable"}
        url = self.target.set(drivername="postgresql").update_query_dict(plain)
        dsn = url.render_as_string(hide_password=False).encode()
        connection = await asyncio.to_thread(pq.PGconn.connect, dsn)
        if connection.status != pq.ConnStatus.OK:
            raise ConnectionError(connection.get_error_message())
        shared = socket.socket(fileno=os.dup(connection.socket))
        server = Server(connection, *await asyncio.open_connection(sock=shared))
        self.served[server] = 0
        return server

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        client = Client(reader, writer, struct.pack("!II", next(_numbers), 4711))
        try:
            if await self._greeted(client):
                self._clients[client.key] = client
                await self._serve(client)
        except (OSError, EOFError, asyncio.CancelledError):
            # The client, the server or the end of the test closed the connection.
            pass
        finally:
            self._clients.pop(client.key, None)
            if client.answers is not None:
                client.answers.cancel()
            if client.server is not None:
                await self._replace(client.server)
            writer.close()
            self._tasks.discard(task)

    async def _greeted(self, client: Client) -> bool:
        while True:
            length, code = struct.unpack("!II", await client.reader.readexactly(8))
            body = await client.reader.readexactly(length - 8)
            if code in (SSL, GSS):
                client.writer.write(b"N")
                continue
            if code == CANCEL:
                await self._cancel(body)
                return False
            words = body.rstrip(b"\0").split(b"\0")
            for name in words[::2]:
                if name.decode() not in STARTUP | {"application_name"}:
                    text = b"SFATAL\0C08P01\0Munsupported startup parameter: " + name + b"\0\0"
                    client.writer.write(message(b"E", text))
                    return False
            if self.size is None:
                client.server = await self._connect()
            known = client.server or next(iter(self.served))
            client.writer.write(
                message(b"R", b"\0\0\0\0")
                + known.parameters()
                + message(b"K", client.key)
                + message(b"Z", b"I")
            )
            return True

    async def _cancel(self, key: bytes) -> None:
        """Forward a cancel request to the server connection of the client's transaction, if it has one."""
        client = self._clients.get(key)
        if client is not None and client.server is not None:
            await asyncio.to_thread(client.server.connection.get_cancel().cancel)

    async def _serve(self, client: Client) -> None:
        while True:
            kind, body = await read_message(client.reader)
            if kind == b"X":
                return
            if client.server is None:
                client.server = await self._free.get()
            if client.answers is None:
                client.answers = asyncio.create_task(self._answer(client, client.server))
            client.pending += kind in ENDING
            client.unanswered = kind not in ENDING
            client.server.writer.write(message(kind, body))
            await client.server.writer.drain()

    async def _answer(self, client: Client, server: Server) -> None:
        try:
            while True:
                kind, body = await read_message(server.reader)
                if kind == b"A" and not self.deliver:
                    self.dropped += 1
                    continue
                done = kind == b"Z" and self._ended(client, body)
                if done and self.size is not None:
                    # Before the client gets the answer, so its next transaction uses another connection.
                    self.served[server] += 1
                    client.server = client.answers = None
                    self._free.put_nowait(server)
                client.writer.write(message(kind, body))
                if done and self.size is not None:
                    return
                await client.writer.drain()
        except (OSError, EOFError):
            client.writer.close()

    def _ended(self, client: Client, status: bytes) -> bool:
        client.pending -= 1
        return client.pending == 0 and not client.unanswered and status == b"I"

    async def _replace(self, server: Server) -> None:
        """Replace a server connection that a client has left in the middle of a transaction."""
        server.close()
        del self.served[server]
        if self.size is not None and self._listener.is_serving():
            with contextlib.suppress(OSError, EOFError):
                self._free.put_nowait(await self._connect())


@asynccontextmanager
async def pooler(target: URL, servers: int | None = 3, deliver: bool = False) -> AsyncIterator[Pooler]:
    """A pooler in front of the server of a URL."""
    started = Pooler(target, servers, deliver)
    await started.start()
    try:
        yield started
    finally:
        await started.stop()
