"""The HTTP server of `oban start`, which answers while the event loop is blocked."""

import contextlib
import errno
import json
import logging
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit
from weakref import WeakSet

from oban.errors import ConfigError
from oban.log_limits import LogLimit

logger = logging.getLogger("oban.status")

#: The address at which servers listen by default.
HOST = "127.0.0.1"
#: Seconds that a client has to send its request, and then to read the answer.
CLIENT_TIMEOUT = 5.0
#: The most bytes of a request line and its headers.
MAX_REQUEST = 16 * 1024
#: The most connections at once. One more closes the oldest one, so that idle clients keep nobody out.
MAX_CONNECTIONS = 16
#: Seconds until the next attempt to accept a connection when the process has no file descriptor left.
ACCEPT_PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class Request:
    """A request to a route.

    Attributes:
        query: The parameters of the URL, each with all its values.
        headers: The header fields. Their names are not case-sensitive.
    """

    query: Mapping[str, list[str]] = field(default_factory=dict)
    headers: "Message[str, str]" = field(default_factory=Message)


@dataclass(frozen=True, slots=True)
class Answer:
    """The response of a route."""

    body: bytes
    content_type: str
    status: int = HTTPStatus.OK

    @classmethod
    def of(cls, document: Any, status: int = HTTPStatus.OK) -> "Answer":
        """An answer in JSON."""
        return cls(json.dumps(document).encode() + b"\n", "application/json", status)


#: Answers GET and HEAD requests for one path. It is called in a thread of its own.
Route = Callable[[Request], Answer]


class StatusServer:
    """Serves routes over HTTP from daemon threads.

    A client that is slow, sends too much or opens many connections takes nothing from the node but a few
    threads. Errors of a route are logged, and the client learns only that there was one.

    Args:
        host: The address to listen at, such as 127.0.0.1, ::1 or 0.0.0.0.
        port: The port; 0 lets the system choose one.
        routes: The functions that answer, by path. Routes can be added while the server runs.
    """

    def __init__(self, host: str, port: int, routes: dict[str, Route]) -> None:
        self.routes = routes
        self._host, self._port = host, port
        self._path: str | None = None
        self._server: _Server | None = None

    @classmethod
    def at_path(cls, path: str, routes: dict[str, Route]) -> "StatusServer":
        """A server at a socket in the file system, which must not exist yet."""
        server = cls("", 0, routes)
        server._path = path
        return server

    @property
    def port(self) -> int:
        """The port on which the server listens."""
        return self._port if self._server is None else int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The URL of the server, without a path."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    def start(self) -> None:
        """Listen, and serve until `stop`.

        Raises:
            ConfigError: The host is unknown, or the address is in use or not permitted.
        """
        try:
            family, address = self._address()
            self._server = _Server(family, address, self.routes)
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"cannot listen at {self.url}: {_reason(error)}") from None
        threading.Thread(target=self._server.serve_forever, name="oban-status", daemon=True).start()

    def _address(self) -> tuple[int, Any]:
        if self._path is not None:
            return socket.AF_UNIX, self._path
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        return family, address

    def stop(self) -> None:
        """Stop listening. Answers under way go on."""
        if self._server is not None:
            server, self._server = self._server, None
            server.shutdown()
            server.server_close()


def _reason(error: OSError | UnicodeError) -> str:
    reason = str(getattr(error, "strerror", None) or error)
    if getattr(error, "errno", None) == errno.EADDRINUSE:
        return "another process uses this port. Stop it, or choose another port"
    if getattr(error, "errno", None) == errno.EACCES:
        return f"{reason}. Choose a port above 1023"
    return reason


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 2 * MAX_CONNECTIONS

    def __init__(self, family: int, address: Any, routes: Mapping[str, Route]) -> None:
        self.address_family = family
        self.routes = routes
        self._connections: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        self._failures = LogLimit()
        super().__init__(address, _Handler)
        _servers.add(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:
            # `serve_forever` would try again at once.
            time.sleep(ACCEPT_PAUSE)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            oldest = next(iter(self._connections)) if len(self._connections) >= MAX_CONNECTIONS else None
            if oldest is not None:
                del self._connections[oldest]
            self._connections[request] = None
        if oldest is not None:
            _cut(oldest)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # The client has gone, or there is no thread for it. The base class prints a traceback.
        logger.debug("a status request failed", exc_info=True)

    def log_failure(self, path: str) -> None:
        """Log the error of a route, at most once a minute."""
        if count := self._failures.count():
            logger.exception("the answer to %s failed (%s since the last report)", path, count)


_servers: "WeakSet[_Server]" = WeakSet()


def _close_in_child() -> None:
    """Close the sockets in a child that a job has forked, which would keep the port in use."""
    for server in list(_servers):
        server.socket.close()


os.register_at_fork(after_in_child=_close_in_child)


def _cut(connection: socket.socket) -> None:
    """Let the thread of a connection end. It closes the socket itself."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    connection: socket.socket
    timeout = CLIENT_TIMEOUT
    # Version 0.9, which the base class assumes before it knows, has no status line.
    default_request_version = "HTTP/1.0"

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        # The base class would let a client send one byte every few seconds, and megabytes of headers.
        self.rfile = BytesIO(self._read_head())

    def _read_head(self) -> bytes:
        """Read from the connection up to the end of the headers; empty if it does not come in time."""
        head, deadline = b"", time.monotonic() + CLIENT_TIMEOUT
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            left = deadline - time.monotonic()
            if len(head) > MAX_REQUEST or left <= 0:
                break
            self.connection.settimeout(left)
            try:
                part = self.connection.recv(4096)
            except OSError:
                return b""
            if not part:
                return b""
            head += part
        self.connection.settimeout(CLIENT_TIMEOUT)
        return head

    def handle_one_request(self) -> None:
        self.close_connection = True
        self.requestline, self.request_version, self.command = "", self.default_request_version, ""
        head = self.rfile.getvalue()  # type: ignore[attr-defined]
        if not head:
            return
        if len(head) > MAX_REQUEST:
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        self.raw_requestline = self.rfile.readline()
        if self.parse_request():
            self.close_connection = True
            self._answer()

    def _answer(self) -> None:
        if self.command not in ("GET", "HEAD"):
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
            return
        try:
            url = urlsplit(self.path)
            query = parse_qs(url.query, max_num_fields=100)
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        route = self.server.routes.get(url.path) or self.server.routes.get(url.path.rstrip("/"))
        if route is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            answer = route(Request(query, self.headers))
        # An error of a route must not become a traceback on stderr, nor reach the client.
        except Exception:
            self.server.log_failure(url.path)
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        self._send(answer)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        # The messages of the base class quote the request.
        self._send(Answer.of({"error": HTTPStatus(code).phrase}, code))

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def version_string(self) -> str:
        return "oban"

    def log_message(self, format: str, *args: Any) -> None:
        # A probe comes every few seconds.
        pass
