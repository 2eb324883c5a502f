"""The HTTP server of `oban start`: its answers, and clients that are slow, wrong or too many."""

import http.client
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from oban.cli import status_server
from oban.cli.status_server import Answer, Request, StatusServer
from oban.errors import ConfigError
from tests.support.waiting import Deadline


def fails(request: Request) -> Answer:
    raise ValueError("s3cret")


def echo(request: Request) -> Answer:
    return Answer.of({"query": dict(request.query), "accept": request.headers["accept"]}, 503)


@contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[StatusServer]:
    server = StatusServer(host, 0, {"/": lambda _: Answer.of("root"), "/echo": echo, "/fails": fails})
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[StatusServer]:
    with serving() as server:
        yield server


def ask(server: StatusServer, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    return response.status, response.read().decode()


def send(server: StatusServer, data: bytes) -> bytes:
    """Send bytes, and return all that comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        received = b""
        try:
            connection.sendall(data)
            while part := connection.recv(4096):
                received += part
        except ConnectionError:
            # The server closed it before it had read everything.
            pass
    return received


def test_a_route_gets_the_query_and_the_headers_and_chooses_the_status(server: StatusServer) -> None:
    status, body = ask(server, "/echo/?name=a&name=b", Accept="text/plain")
    assert (status, json.loads(body)) == (503, {"query": {"name": ["a", "b"]}, "accept": "text/plain"})


def test_head_gets_the_headers_alone(server: StatusServer) -> None:
    answer = send(server, b"HEAD /echo HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 503 ")
    assert b"Content-Length: " in answer
    assert answer.endswith(b"\r\n\r\n")


def test_a_route_can_be_added_later(server: StatusServer) -> None:
    server.routes["/metrics"] = lambda _: Answer(b"a 1\n", "text/plain")
    assert ask(server, "/metrics") == (200, "a 1\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"GET /s3cret HTTP/1.1\r\n\r\n", 404),
        (b"GET //[ HTTP/1.1\r\n\r\n", 404),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
        (b"GET /?" + b"a=1&" * 101 + b" HTTP/1.1\r\n\r\n", 400),
        (b"s3cret\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"\xff\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"A: s3cret\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"s3cret" * 3000, 431),
        (b"GET /fails HTTP/1.1\r\n\r\n", 500),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_request_gets_an_error_that_quotes_nothing(
    server: StatusServer, request_: bytes, status: int
) -> None:
    answer = send(server, request_)
    assert answer.startswith(b"HTTP/1.0 %d " % status)
    assert b"s3cret" not in answer
    assert b"Python" not in answer


def test_the_error_of_a_route_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as server:
        for _ in range(3):
            assert ask(server, "/fails")[0] == 500
    (record,) = [record for record in caplog.records if record.name == "oban.status"]
    message = "the answer to /fails failed (1 since the last report)"
    assert (record.levelno, record.getMessage()) == (logging.ERROR, message)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nA: b"], ids=["nothing", "half a header"])
def test_a_slow_client_is_disconnected(
    server: StatusServer, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_server, "CLIENT_TIMEOUT", 0.1)
    assert send(server, sent) == b""


def test_a_client_that_sends_a_byte_now_and_then_is_disconnected(
    server: StatusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_server, "CLIENT_TIMEOUT", 0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        deadline = Deadline(10)
        while not _is_closed(connection):
            assert not deadline.passed()
            time.sleep(0.02)


def _is_closed(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"a")
    except ConnectionError:
        return True
    return False


def test_idle_connections_keep_nobody_out(server: StatusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_server, "CLIENT_TIMEOUT", 60.0)
    idle = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(50)]
    try:
        assert ask(server, "/") == (200, '"root"\n')
        # The oldest one was closed to make room.
        assert idle[0].recv(1) == b""
    finally:
        for connection in idle:
            connection.close()


def test_a_port_in_use_is_a_clear_error(server: StatusServer) -> None:
    second = StatusServer("127.0.0.1", server.port, {})
    with pytest.raises(ConfigError) as caught:
        second.start()
    assert str(caught.value) == (
        f"cannot listen at http://127.0.0.1:{server.port}: another process uses this port. Stop it, or choose"
        " another port"
    )


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 300, "256.1.1.1"])
def test_an_unknown_host_is_a_clear_error(host: str) -> None:
    with pytest.raises(ConfigError, match="cannot listen at http://"):
        StatusServer(host, 0, {}).start()


def test_it_listens_with_ipv6() -> None:
    with serving("::1") as server, socket.create_connection(("::1", server.port), timeout=10) as connection:
        assert server.url == f"http://[::1]:{server.port}"
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.0 200 ")


def test_a_forked_child_does_not_keep_the_port() -> None:
    read, write = os.pipe()
    with serving() as server:
        port = server.port
        if (child := os.fork()) == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
    try:
        again = StatusServer("127.0.0.1", port, {})
        again.start()
        again.stop()
    finally:
        os.close(write)
        os.waitpid(child, 0)
        os.close(read)
