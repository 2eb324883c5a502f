"""Metrics for Prometheus: of a process, and of the jobs in the database. Needs `oban-sqlalchemy[prometheus]`.

`app.mount("/metrics", metrics_app(oban))` serves them. `ObanMetrics(oban)` only adds them to a registry of
`prometheus_client`, for an application that serves that itself.
"""

try:
    from oban.prometheus.app import MetricsApp, metrics_app
    from oban.prometheus.metrics import ObanMetrics
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"oban.prometheus needs the package {_error.name}: pip install 'oban-sqlalchemy[prometheus]'",
        name=_error.name,
    ) from None

__all__ = ["MetricsApp", "ObanMetrics", "metrics_app"]
