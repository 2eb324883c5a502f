"""One folder for everything that a database does in its own way."""

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.orm import Session

from oban.dialects.base import Dialect
from oban.dialects.postgresql.dialect import PostgreSQL
from oban.dialects.sqlite.dialect import SQLite
from oban.errors import ConfigError, DatabaseUnavailable, UnsupportedDatabase

_DIALECTS: dict[str, Dialect] = {"postgresql": PostgreSQL(), "sqlite": SQLite()}


def by_name(name: str) -> Dialect:
    """The dialect by SQLAlchemy's name of the database; raises `UnsupportedDatabase`."""
    try:
        return _DIALECTS[name]
    except KeyError:
        raise UnsupportedDatabase(f"{name} is not supported; use {' or '.join(sorted(_DIALECTS))}") from None


def for_bind(bound: Session | Connection | Engine) -> Dialect:
    """The dialect of what a session, connection or engine talks to."""
    return by_name((bound.get_bind() if isinstance(bound, Session) else bound).dialect.name)


def redacted(url: URL) -> str:
    """A database URL as it may be printed: without anything that is a password."""
    query = {key: "***" if "pass" in key else value for key, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True)


def driver_error(error: BaseException) -> BaseException:
    """The driver's own error: without the statement and its parameters, which may hold job values."""
    original: BaseException = getattr(error, "orig", None) or error
    return original


def unavailable(url: URL, error: BaseException) -> DatabaseUnavailable | None:
    """What to raise for a driver's error that means that the database cannot be reached, else None."""
    if not by_name(url.get_backend_name()).is_connection_error(error):
        return None
    reason = driver_error(error)
    text = str(reason).strip() or type(reason).__name__
    return DatabaseUnavailable(f"cannot reach the database {redacted(url)}: {text}")


def parse_async_url(url: str | URL) -> URL:
    """The same as `parse_url`; the driver must work with asyncio."""
    parsed = parse_url(url)
    dialect = by_name(parsed.get_backend_name())
    if parsed.get_driver_name() not in dialect.async_drivers:
        raise ConfigError(
            f"the driver {parsed.get_driver_name()} does not work with asyncio;"
            f" use {' or '.join(dialect.async_drivers)}"
        )
    return parsed


def parse_sync_url(url: str | URL) -> URL:
    """The same as `parse_url`, for a driver without asyncio."""
    parsed = parse_url(url, asynchronous=False)
    dialect = by_name(parsed.get_backend_name())
    if parsed.get_driver_name() not in dialect.sync_drivers:
        raise ConfigError(
            f"the driver {parsed.get_driver_name()} works with asyncio only;"
            f" use {' or '.join(dialect.sync_drivers)}"
        )
    return parsed


def parse_url(url: str | URL, *, asynchronous: bool = True) -> URL:
    """A database URL, checked: well formed, of a supported database, of a driver that exists.

    A URL without a driver gets the one that Oban prefers, with asyncio or without. Raises
    `ConfigError`, never with the password in the text.
    """
    try:
        parsed = make_url(url)
    # ValueError: a port that is no number, such as the rest of a password with an unescaped @.
    except (ArgumentError, ValueError):
        raise ConfigError(
            "the database URL cannot be read; it looks like postgresql+asyncpg://user@host/name"
            " or sqlite+aiosqlite:///file.db"
        ) from None
    dialect = by_name(parsed.get_backend_name())
    if "+" not in parsed.drivername:
        preferred = dialect.async_drivers if asynchronous else dialect.sync_drivers
        parsed = parsed.set(drivername=f"{dialect.name}+{preferred[0]}")
    if parsed.get_driver_name() not in dialect.drivers:
        raise UnsupportedDatabase(
            f"the driver {parsed.get_driver_name()} is not supported for {dialect.name};"
            f" use {' or '.join(dialect.drivers)}"
        )
    try:
        parsed.get_dialect().import_dbapi()
    except (NoSuchModuleError, ImportError) as error:
        extra = "; pip install 'oban-sqlalchemy[psycopg]'" if parsed.get_driver_name() == "psycopg" else ""
        raise ConfigError(f"the driver of {parsed.drivername} is not installed: {error}{extra}") from None
    return parsed
