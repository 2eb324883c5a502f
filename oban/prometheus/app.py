"""`metrics_app`: serves the metrics of a registry as an ASGI or a WSGI application."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app, multiprocess

from oban.client import Oban
from oban.errors import ConfigError
from oban.prometheus.collector import Collector
from oban.prometheus.metrics import ObanMetrics
from oban.sync_client import SyncOban

Message: TypeAlias = MutableMapping[str, Any]
StartResponse: TypeAlias = Callable[[str, list[tuple[str, str]]], Any]


def metrics_app(
    *sources: Oban | SyncOban | ObanMetrics, registry: CollectorRegistry | None = None, **options: Any
) -> "MetricsApp":
    """Make an application that serves the metrics of clients, and whatever else is in their registry.

    It is an ASGI application, and its method `wsgi` is a WSGI application. It answers in the text format of
    Prometheus or in OpenMetrics, as the request asks for.

    Args:
        sources: Clients, or their `ObanMetrics` if they exist already.
        registry: The registry (default: that of the `ObanMetrics`, else `prometheus_client.REGISTRY`).
        options: As for `ObanMetrics`, for the clients: `max_label_values`, `refresh_interval`, `count_limit`.

    Returns:
        A `MetricsApp`.

    Raises:
        ConfigError: There is no source, the sources belong to different registries, or an option is wrong.
    """
    registries = {source.registry for source in sources if isinstance(source, ObanMetrics)}
    if registry is not None:
        registries.add(registry)
    if not sources:
        raise ConfigError("metrics_app needs an Oban, a SyncOban or an ObanMetrics")
    if len(registries) > 1:
        raise ConfigError("metrics_app serves one registry, but its arguments have several")
    used = registries.pop() if registries else REGISTRY
    metrics = []
    for source in sources:
        if isinstance(source, ObanMetrics):
            metrics.append(source)
        else:
            # Applications that are made several times in one process, in tests for instance, share a client.
            metrics.append(ObanMetrics.of(source, used) or ObanMetrics(source, registry=used, **options))
    return MetricsApp(used, metrics)


class RegistryApp:
    """A WSGI application that serves a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._app: Any = make_wsgi_app(registry)

    def wsgi(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request as a WSGI application."""
        body: Iterable[bytes] = self._app(environ, start_response)
        return body

    def respond(self, environ: dict[str, Any]) -> tuple[int, list[tuple[str, str]], bytes]:
        """Answer a request; returns the status, the header fields and the body."""
        started: list[tuple[str, list[tuple[str, str]]]] = []
        body = b"".join(self.wsgi(environ, lambda status, fields: started.append((status, fields))))
        ((status, fields),) = started
        return int(status.split()[0]), fields, body


class MetricsApp(RegistryApp):
    """The ASGI and WSGI application that `metrics_app` returns."""

    def __init__(self, registry: CollectorRegistry, metrics: list[ObanMetrics]) -> None:
        super().__init__(_served(registry))
        self._metrics = metrics

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer a request as an ASGI application."""
        if scope["type"] != "http":
            # Servers take this as the answer that there is no lifespan.
            raise RuntimeError(f"metrics are served over HTTP, not {scope['type']}")
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        environ = {
            "REQUEST_METHOD": scope["method"],
            "PATH_INFO": "/",
            "QUERY_STRING": scope.get("query_string", b"").decode("latin-1"),
            "HTTP_ACCEPT": headers.get(b"accept", ""),
            "HTTP_ACCEPT_ENCODING": headers.get(b"accept-encoding", ""),
        }
        await asyncio.gather(*(metrics.sampler.refresh_async() for metrics in self._metrics))
        # With thousands of series, this takes a while.
        status, fields, body = await asyncio.to_thread(self.respond, environ)
        encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})


def _served(registry: CollectorRegistry) -> CollectorRegistry:
    """The registry that is served: with `PROMETHEUS_MULTIPROC_DIR`, one with the metrics of all processes."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return registry
    served = CollectorRegistry()
    multiprocess.MultiProcessCollector(served)  # type: ignore[no-untyped-call]
    # The samples from the database are the same for all processes.
    served.register(Collector.of(registry))
    return served
