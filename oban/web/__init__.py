"""A dashboard that mounts in an ASGI application: `app.mount("/oban", dashboard(oban, authorize=…))`.

It needs `pip install 'oban-sqlalchemy[web]'`.
"""

try:
    from oban.web.access import Access, Authorize
    from oban.web.app import Dashboard, dashboard
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"oban.web needs the package {_error.name}: pip install 'oban-sqlalchemy[web]'", name=_error.name
    ) from None

__all__ = ["Access", "Authorize", "Dashboard", "dashboard"]
