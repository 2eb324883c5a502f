"""Serves the metrics of `oban start`: of one node, or of the processes of a supervisor."""

import functools
import http.client
import importlib.util
import logging
import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oban.cli.status import Status
from oban.cli.status_server import HOST, Answer, Request, StatusServer
from oban.errors import ConfigError

if TYPE_CHECKING:
    from oban import Oban

logger = logging.getLogger("oban.status")

PATH = "/metrics"
#: Seconds that a process has to answer its supervisor.
NODE_TIMEOUT = 5.0
#: The parameter with which a supervisor asks a process for its own metrics only.
WITHOUT_SAMPLES = "without_samples"
_OPENMETRICS = "application/openmetrics-text; version=1.0.0"

Environ = dict[str, Any]
Respond = Callable[[Environ], tuple[int, list[tuple[str, str]], bytes]]


class MetricsServer:
    """Serves `/metrics` of this process, and answers 503 until there is something to serve.

    Args:
        values: The settings.

    Raises:
        ConfigError: The extra is missing.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        if importlib.util.find_spec("prometheus_client") is None:
            raise ConfigError(
                "--metrics-port needs the package prometheus-client:"
                " pip install 'oban-sqlalchemy[prometheus]'"
            )
        self._values = values
        self._respond: Respond | None = None

    @classmethod
    def find(cls, values: Mapping[str, Any]) -> "MetricsServer | None":
        """Make a server if the settings ask for one."""
        return None if values.get("metrics_port") is None else cls(values)

    def serve(self, status: Status) -> None:
        """Listen on a port of its own, or on that of the health endpoints if it is the same.

        Raises:
            ConfigError: It cannot listen there, or the same port has two addresses.
        """
        port = self._values["metrics_port"]
        if port and port == self._values.get("health_port"):
            health_host = self._values.get("health_host", HOST)
            host = self._values.get("metrics_host", health_host)
            if host != health_host:
                raise ConfigError(
                    f"--metrics-port and --health-port are the same, but --metrics-host is {host} and"
                    f" --health-host is {health_host}: choose one address, or two ports"
                )
            status.routes[PATH] = self._answer
            logger.info("the metrics are at %s, too", PATH)
            return
        server = StatusServer(self._values.get("metrics_host", HOST), port, {PATH: self._answer})
        server.start()
        logger.info("the metrics are at %s%s", server.url, PATH)

    def show_node(self, oban: "Oban") -> None:
        """Serve the metrics of a node."""
        from oban.prometheus import metrics_app

        self._respond = metrics_app(oban).respond

    def show_nodes(self, nodes: "NodesMetrics") -> None:
        """Serve the metrics of several nodes."""
        self._respond = nodes.respond

    def _answer(self, request: Request) -> Answer:
        if self._respond is None:
            document = {"error": "the node is starting"}
            return Answer.of(document, HTTPStatus.SERVICE_UNAVAILABLE)
        return _answer(self._respond, request)


def serve_to_supervisor(path: str, oban: "Oban") -> None:
    """Serve the metrics of a node to its supervisor, at a socket in the file system."""
    from oban.prometheus import ObanMetrics
    from oban.prometheus.app import RegistryApp
    from oban.prometheus.collector import without_samples

    metrics = ObanMetrics.of(oban) or ObanMetrics(oban)
    # Its own metrics, also where processes share theirs through files: the supervisor asks each of them.
    app = RegistryApp(metrics.registry)

    def answer(request: Request) -> Answer:
        # Each request has a thread, and so a context, of its own.
        without_samples.set(WITHOUT_SAMPLES in request.query)
        return _answer(app.respond, request)

    # A process that was killed leaves its socket.
    Path(path).unlink(missing_ok=True)
    StatusServer.at_path(path, {PATH: answer}).start()


class NodesMetrics:
    """Serves the metrics of all processes of a supervisor together.

    Args:
        names: The names of the nodes.
    """

    def __init__(self, names: Sequence[str]) -> None:
        # Nobody else can connect to a socket in it.
        self._folder = Path(tempfile.mkdtemp(prefix="oban-"))
        self._numbers = {name: number for number, name in enumerate(names)}

    def path(self, name: str) -> str:
        """Where the process of a node serves its metrics."""
        return str(self._folder / f"{self._numbers[name]}.sock")

    @functools.cached_property
    def respond(self) -> Respond:
        """Answers with the metrics of all processes."""
        from prometheus_client import CollectorRegistry

        from oban.prometheus.app import RegistryApp
        from oban.prometheus.nodes import NodesCollector

        registry = CollectorRegistry()
        registry.register(NodesCollector(list(self._numbers), self._fetch))
        return RegistryApp(registry).respond

    def remove(self) -> None:
        """Remove the sockets."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _fetch(self, name: str, with_samples: bool) -> str:
        connection = _UnixConnection(self.path(name))
        try:
            query = "" if with_samples else f"?{WITHOUT_SAMPLES}=1"
            connection.request("GET", PATH + query, headers={"Accept": _OPENMETRICS})
            response = connection.getresponse()
            if response.status != 200:
                raise OSError(f"status {response.status}")
            return response.read().decode()
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    """A connection to a server at a path of the file system."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=NODE_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _answer(respond: Respond, request: Request) -> Answer:
    status, fields, body = respond(
        {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": PATH,
            "QUERY_STRING": "&".join(f"name[]={name}" for name in request.query.get("name[]", [])),
            "HTTP_ACCEPT": request.headers.get("Accept", ""),
        }
    )
    return Answer(body, dict(fields)["Content-Type"], status)
