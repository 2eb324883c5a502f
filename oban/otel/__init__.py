"""Traces and metrics through OpenTelemetry: `ObanInstrumentor().instrument()`.

It needs `pip install 'oban-sqlalchemy[otel]'`, which installs OpenTelemetry's API. Without its SDK, nothing
is recorded, and the context of a trace still travels with the jobs.
"""

from oban.otel.instrumentor import ObanInstrumentor

__all__ = ["ObanInstrumentor"]
