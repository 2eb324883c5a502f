"""Traces and metrics through OpenTelemetry: `ObanInstrumentor().instrument()`.

It needs `pip install 'oban-sqlalchemy[otel]'`, which installs OpenTelemetry's API. Without its SDK, nothing
is recorded, and the context of a trace still travels with the jobs.
"""

try:
    from oban.otel.instrumentor import ObanInstrumentor
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"oban.otel needs the package {_error.name}: pip install 'oban-sqlalchemy[otel]'", name=_error.name
    ) from None

__all__ = ["ObanInstrumentor"]
