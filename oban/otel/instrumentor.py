"""`ObanInstrumentor`: turns traces and metrics on and off."""

import logging
import sys
import threading
from collections.abc import Callable, Collection
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from opentelemetry import metrics, trace
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from oban import display, telemetry
from oban.errors import ConfigError
from oban.otel.consuming import Consuming
from oban.otel.metrics import Metrics
from oban.otel.producing import Producing, listen_to_sessions, stop_listening
from oban.telemetry import JobEnded, JobStarted, Telemetry, handlers

logger = logging.getLogger("oban.otel")

#: The version of the semantic conventions that names of spans and attributes follow.
_SCHEMA = "https://opentelemetry.io/schemas/1.30.0"

#: The functions that end an instrumentation.
_Undo = list[Callable[[], object]]


_lock = threading.Lock()
#: The clients that are instrumented on their own.
_clients: "WeakKeyDictionary[Telemetry, _Undo]" = WeakKeyDictionary()


class Client(Protocol):
    """An `Oban` or a `SyncOban`."""

    telemetry: Telemetry


class ObanInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Makes spans and metrics of enqueued jobs and of attempts, through OpenTelemetry.

    There is one instance, which each call of the class returns. `instrument` is for every client of the
    process, `instrument_client` for one of them. The context of a trace travels in `meta`, by the global
    propagator.

    Example:
        `ObanInstrumentor().instrument()`
    """

    #: The functions that end the instrumentation of all clients; None without one.
    _undo: _Undo | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        # It comes with the library itself.
        return ()

    def instrument_client(
        self,
        client: Client,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        """Instrument one client. Does nothing while it, or every client, is instrumented.

        Jobs that the application adds to its sessions itself belong to no client: only `instrument` gives
        them a context.

        Args:
            client: An `Oban` or a `SyncOban`.
            tracer_provider: Makes the spans (default: the global one).
            meter_provider: Makes the metrics (default: the global one).

        Raises:
            ConfigError: `client` is neither an `Oban` nor a `SyncOban`.
        """
        observed = _telemetry_of(client)
        with _lock:
            if self._undo is not None or observed in _clients:
                logger.warning("the client is instrumented already")
                return
            _clients[observed] = _attach(observed, tracer_provider, meter_provider)

    def uninstrument_client(self, client: Client) -> None:
        """End `instrument_client`. Does nothing if the client was not instrumented by it.

        Args:
            client: An `Oban` or a `SyncOban`.

        Raises:
            ConfigError: `client` is neither an `Oban` nor a `SyncOban`.
        """
        observed = _telemetry_of(client)
        with _lock:
            _run(_clients.pop(observed, []))

    def _instrument(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        **_: Any,
    ) -> None:
        with _lock:
            # From now on, they are instrumented as every client is.
            for observed in [*_clients]:
                _run(_clients.pop(observed))
            listen_to_sessions()
            self._undo = [stop_listening, *_attach(None, tracer_provider, meter_provider)]

    def _uninstrument(self, **_: Any) -> None:
        with _lock:
            _run(self._undo or [])
            self._undo = None


def _attach(
    target: Telemetry | None, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
) -> _Undo:
    """Attach everything to one client, or to all of them (None)."""
    version = sys.modules["oban"].__version__
    tracer = trace.get_tracer("oban", version, tracer_provider, _SCHEMA)
    instruments = Metrics(metrics.get_meter("oban", version, meter_provider, _SCHEMA))
    consuming, producing = Consuming(tracer, instruments), Producing(tracer, instruments)
    attach = telemetry.attach if target is None else target.attach
    wrap = handlers.wrap_enqueues if target is None else target.wrap_enqueues
    return [
        attach(consuming.started, JobStarted),
        attach(consuming.ended, JobEnded),
        wrap(producing.wrap),
        instruments.close,
    ]


def _run(undo: _Undo) -> None:
    for step in undo:
        step()


def _telemetry_of(client: Client) -> Telemetry:
    observed = getattr(client, "telemetry", None)
    if not isinstance(observed, Telemetry):
        raise ConfigError(f"instrument_client takes an Oban or a SyncOban, not {display.shown(client)}")
    return observed
