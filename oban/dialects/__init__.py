"""The dialects of the databases, a folder for each. `by_name` and `for_bind` find the one to use."""

from pathlib import Path

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from oban.dialects.base import Dialect
from oban.dialects.diagnostics import Diagnostics
from oban.dialects.moved import MovedPostgreSQL, MovedSQLite
from oban.dialects.postgresql.diagnostics import PostgreSQLDiagnostics
from oban.dialects.postgresql.dialect import PostgreSQL
from oban.dialects.postgresql.parameters import spread_hosts
from oban.dialects.sqlite.diagnostics import SQLiteDiagnostics
from oban.dialects.sqlite.dialect import SQLite
from oban.errors import ConfigError, DatabaseUnavailable, UnsupportedDatabase

#: Every dialect by SQLAlchemy's name of its database.
SUPPORTED: dict[str, Dialect] = {
    dialect.name: dialect for dialect in (PostgreSQL(MovedPostgreSQL()), SQLite(MovedSQLite()))
}
_DIAGNOSTICS: dict[str, Diagnostics] = {
    "postgresql": PostgreSQLDiagnostics(),
    "sqlite": SQLiteDiagnostics(),
}

#: Other names of databases and drivers in URLs, with SQLAlchemy's.
_ALIASES = {"postgres": "postgresql", "psycopg3": "psycopg", "psycopg_async": "psycopg"}


def by_name(name: str) -> Dialect:
    """The dialect of a database, by SQLAlchemy's name for it; raises `UnsupportedDatabase`."""
    try:
        return SUPPORTED[name]
    except KeyError:
        raise UnsupportedDatabase(f"{name} is not supported; use {' or '.join(SUPPORTED)}") from None


def diagnostics(dialect: Dialect) -> Diagnostics:
    """The questions about the health of a dialect's database."""
    return _DIAGNOSTICS[dialect.name]


def for_bind(bind: Connection | Engine) -> Dialect:
    """The dialect of the database that a connection or engine uses."""
    return by_name(bind.dialect.name)


def redacted(url: URL) -> str:
    """A database URL for logs and messages: without its password, also where a parameter has one."""
    secret = ("pass", "secret", "scram")
    query = {
        key: "***" if any(word in key.lower() for word in secret) else value
        for key, value in url.query.items()
    }
    host = (url.host or "").rpartition("@")[2] or None
    rendered = url.set(query=query, host=host).render_as_string(hide_password=True)
    return rendered.replace("%2A%2A%2A", "***")


def _misread_password(url: URL) -> str | None:
    """The end of a password with an unescaped @, which was read as a part of the host."""
    return (url.host or "").rpartition("@")[0] or None


def shown(url: str | URL) -> str:
    """A database URL without its passwords, and nothing of one that cannot be parsed."""
    try:
        return redacted(make_url(spread_hosts(url) if isinstance(url, str) else url))
    except (ArgumentError, ValueError):
        return "***"


def url_in(folder: Path, url: str) -> str:
    """A database URL whose path to a file is relative to a folder, as one for the current folder."""
    try:
        parsed = make_url(url)
    # Whoever uses the URL describes the error.
    except (ArgumentError, ValueError):
        return url
    path = parsed.database
    if parsed.get_backend_name() != "sqlite" or not path or path.startswith((":memory:", "file:")):
        return url
    return parsed.set(database=str(folder / path)).render_as_string(hide_password=False)


def driver_error(error: BaseException) -> BaseException:
    """The driver's own error: SQLAlchemy's includes the statement and its parameters, so values of jobs."""
    original: BaseException = getattr(error, "orig", None) or error
    # SQLAlchemy puts an error of its own around asyncpg's.
    if original.__cause__ is not None and type(original).__module__.startswith("sqlalchemy."):
        return original.__cause__
    return original


def driver_message(error: Exception) -> str:
    """The first line of the driver's message. The next ones have parts of the statement in them."""
    cause = driver_error(error)
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]


def unavailable(url: URL, error: BaseException) -> DatabaseUnavailable | None:
    """The error to raise instead of one that means that the database cannot be reached, else None."""
    dialect = by_name(url.get_backend_name())
    if isinstance(error, DatabaseUnavailable) or not dialect.is_connection_error(error):
        return None
    return _unavailable(dialect, url, error)


def connect(engine: Engine) -> Connection:
    """A connection of an engine; raises `DatabaseUnavailable` if the database cannot be reached."""
    try:
        return engine.connect()
    except Exception as error:
        check_connecting(engine.url, error)
        raise


def check_connecting(url: URL, error: Exception) -> None:
    """Raise `DatabaseUnavailable` instead of an error that prevented a new connection.

    Its cause is the driver's error. A pool without a free connection, and an event handler of the
    application whose statement failed, are other errors: then this returns.
    """
    dialect = by_name(url.get_backend_name())
    elsewhere = isinstance(error, PoolTimeout) or getattr(error, "statement", None) is not None
    if not elsewhere and dialect.refuses_connection(error):
        raise _unavailable(dialect, url, error) from driver_error(error)


def _unavailable(dialect: Dialect, url: URL, error: BaseException) -> DatabaseUnavailable:
    reason = driver_error(error)
    fields = reason.args[0] if reason.args else None
    # pg8000 has a dict of the fields of the server's message.
    text = str(fields["M"] if isinstance(fields, dict) and "M" in fields else reason)
    problem = " ".join(text.split()) or type(reason).__name__
    if secret := _misread_password(url):
        problem = problem.replace(secret, "***")
    if missing := dialect.missing_file(url):
        problem += f" ({missing})"
    return DatabaseUnavailable(f"cannot reach the database {redacted(url)}: {problem}")


def parse_url(url: str | URL, *, asynchronous: bool | None = None) -> URL:
    """Parse and check a database URL: it is well formed, and its database and driver can be used.

    Args:
        url: A string such as `postgresql://user@host/name`, or a `URL`. If it names no driver, the preferred
            one is filled in.
        asynchronous: Whether the driver must work with asyncio (True), without it (False), or with either.

    Raises:
        UnsupportedDatabase: Oban does not support the database or the driver.
        ConfigError: The URL cannot be parsed, its driver is not installed or of the wrong kind, or the driver
            has nothing like one of the parameters. The message never has the password in it.
    """
    try:
        parsed = make_url(spread_hosts(url.strip()) if isinstance(url, str) else url)
    # ValueError: the port is not a number. It is the rest of the password if that has an unescaped @.
    except (ArgumentError, ValueError):
        raise ConfigError(
            "the database URL cannot be read; it looks like postgresql+asyncpg://user@host/name"
            " or sqlite+aiosqlite:///file.db"
        ) from None
    if _misread_password(parsed):
        raise ConfigError(
            "the password in the database URL has an @: write it as %40, or pass a sqlalchemy.URL"
        )
    name, plus, driver = parsed.drivername.partition("+")
    parsed = parsed.set(drivername=_ALIASES.get(name, name) + plus + _ALIASES.get(driver, driver))
    dialect = by_name(parsed.get_backend_name())
    usable = dialect.sync_drivers if asynchronous is False else dialect.async_drivers
    if "+" not in parsed.drivername:
        parsed = parsed.set(drivername=f"{dialect.name}+{usable[0]}")
    driver = parsed.get_driver_name()
    if driver not in dialect.drivers:
        raise UnsupportedDatabase(
            f"the driver {driver} is not supported for {dialect.name}; use {' or '.join(dialect.drivers)}"
        )
    try:
        parsed.get_dialect().import_dbapi()
    except (NoSuchModuleError, ImportError) as error:
        extra = "; pip install 'oban-sqlalchemy[psycopg]'" if driver == "psycopg" else ""
        raise ConfigError(f"the driver of {parsed.drivername} is not installed: {error}{extra}") from None
    if asynchronous is not None and driver not in usable:
        problem = "does not work with asyncio" if asynchronous else "works with asyncio only"
        raise ConfigError(f"the driver {driver} {problem}; use {' or '.join(usable)}")
    return dialect.check_url(parsed)
