"""What clients send to a PostgreSQL server, read from the connections themselves."""

import asyncio
import struct
from typing import NamedTuple

from sqlalchemy import URL

from tests.support.relay import Relay

#: The messages that the server answers before the client goes on: Query, Sync, Flush.
_ENDING = b"QSH"


class Trip(NamedTuple):
    """What a client sends before it waits for an answer: one round trip."""

    #: The number of the connection, from 1.
    connection: int
    #: The statements that are executed, and messages such as Parse and Close with what they are about.
    sent: tuple[str, ...]


class _Client:
    """Reads the messages of one connection."""

    def __init__(self, number: int, trips: list[Trip]) -> None:
        self._number = number
        self._trips = trips
        self._rest = b""
        self._started = False
        #: The texts of prepared statements, and those that portals execute, by name.
        self._prepared: dict[bytes, str] = {}
        self._bound: dict[bytes, str] = {}
        self._sent: list[str] = []

    def feed(self, data: bytes) -> None:
        self._rest += data
        while True:
            # The first messages, requests for encryption and the startup, have no type.
            skipped = 1 if self._started else 0
            if len(self._rest) < skipped + 4:
                return
            end = skipped + struct.unpack_from("!I", self._rest, skipped)[0]
            if len(self._rest) < end:
                return
            kind, body, self._rest = self._rest[:skipped], self._rest[skipped + 4 : end], self._rest[end:]
            if self._started:
                self._read(kind, body)
            elif body[:2] == b"\x00\x03":
                self._started = True

    def _read(self, kind: bytes, body: bytes) -> None:
        first, _, rest = body.partition(b"\0")
        if kind == b"Q":
            self._sent.append(_text(first))
        elif kind == b"P":
            self._prepared[first] = text = _text(rest.partition(b"\0")[0])
            # Parsed and executed at once, the unnamed statement needs no round trip of its own.
            if first:
                self._sent.append(f"Parse {text}")
        elif kind == b"B":
            self._bound[first] = self._prepared[rest.partition(b"\0")[0]]
        elif kind == b"E":
            self._sent.append(self._bound[first])
        elif kind == b"C":
            self._sent.append(f"Close {_text(first[1:])}")
        if kind in _ENDING and self._sent:
            self._trips.append(Trip(self._number, tuple(self._sent)))
            self._sent = []


def _text(sql: bytes) -> str:
    return " ".join(sql.decode().split()).rstrip(";")


class Wiretap(Relay):
    """`async with Wiretap(url) as tap:` - a relay whose `trips` are all round trips through it so far."""

    def __init__(self, url: URL) -> None:
        super().__init__(url)
        self.trips: list[Trip] = []
        self.connections = 0

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        client, read = _Client(self.connections, self.trips), reader.read

        async def heard(n: int = -1) -> bytes:
            data = await read(n)
            client.feed(data)
            return data

        reader.read = heard  # type: ignore[method-assign]
        super()._accept(reader, writer)
