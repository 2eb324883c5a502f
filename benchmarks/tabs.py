"""Pages of the dashboard that are open in browsers, without browsers.

Each holds a stream of events and loads its address again when the stream says so, as `static/live.js` does.
"""

import asyncio
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NamedTuple

#: What the pages show, one after another.
PATHS = ("/", "/jobs", "/queues", "/jobs?q=state:completed", "/nodes")
_HOST = "127.0.0.1"


def hold(port: int, count: int, parent: Connection, loads: Callable[[], None]) -> None:
    """Open pages, tell the parent when all are open, and call `loads` for each one that is loaded again.

    This never returns: end the process.
    """
    asyncio.run(_hold(port, count, parent, loads))


async def _hold(port: int, count: int, parent: Connection, loads: Callable[[], None]) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            path = PATHS[number % len(PATHS)]
            # One after another, as people open pages: the first refreshes are spread evenly over the pause.
            await _load(port, path)
            while (stream := await _request(port, "/events")).status != 200:
                stream.writer.close()
            group.create_task(_follow(stream, port, path, loads))
        parent.send("open")


async def _follow(stream: "Body", port: int, path: str, loads: Callable[[], None]) -> None:
    async for line in stream.reader:
        if line.strip() == b"event: refresh" and await _load(port, path) == 200:
            loads()
    stream.writer.close()


async def _load(port: int, path: str) -> int:
    body = await _request(port, path)
    await body.reader.read()
    body.writer.close()
    return body.status


class Body(NamedTuple):
    """The body of an answer, its status, and the connection, which closes with the writer."""

    status: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def _request(port: int, path: str) -> Body:
    """Send a request, and return the body of its answer."""
    reader, writer = await asyncio.open_connection(_HOST, port)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: {_HOST}:{port}\r\nX-Refresh: 1\r\nConnection: close\r\n\r\n".encode()
    )
    status = int((await reader.readline()).split()[1])
    while await reader.readline() not in (b"\r\n", b""):
        pass
    return Body(status, reader, writer)
