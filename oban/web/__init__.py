"""A dashboard that mounts in an ASGI application: `app.mount("/oban", dashboard(oban, authorize=…))`.

It needs `pip install 'oban-sqlalchemy[web]'`.
"""

try:
    from oban.web.access import Access, Authorize
    from oban.web.app import Dashboard, dashboard
    from oban.web.passwords import basic_auth
except ModuleNotFoundError as _error:
    _package = (_error.name or "").partition(".")[0]
    raise ModuleNotFoundError(
        f"oban.web needs the package {_package}: pip install 'oban-sqlalchemy[web]'", name=_package
    ) from None

__all__ = ["Access", "Authorize", "Dashboard", "basic_auth", "dashboard"]
