"""Private names of aiosqlite, and how `sqlite3` itself commits."""

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection

from oban.compat.greenlets import wait_for

T = TypeVar("T")


def sqlite_autocommit(connection: Connection) -> Any:
    """Return the attribute `autocommit` of sqlite3's connection; None before Python 3.12, which added it.

    With aiosqlite, only its thread can read the attribute. Without the names for that, the result is
    `LEGACY_TRANSACTION_CONTROL`: nobody notices `autocommit=True`, which commits each statement.
    """
    if not hasattr(sqlite3, "LEGACY_TRANSACTION_CONTROL"):
        return None
    info = connection.info
    if (known := info.get(sqlite_autocommit)) is None:
        driver: Any = connection.connection.driver_connection
        known = driver_autocommit(driver)
        if isinstance(driver, sqlite3.Connection):
            # It can be changed at any time.
            return known
        info[sqlite_autocommit] = known
    return known


def driver_autocommit(driver: Any) -> Any:
    """Return `autocommit` of a driver's connection; without the names, `LEGACY_TRANSACTION_CONTROL`."""
    try:
        if isinstance(driver, sqlite3.Connection):
            return driver.autocommit  # type: ignore[attr-defined, unused-ignore]
        return wait_for(driver._execute(getattr, driver._conn, "autocommit"))
    except AttributeError:
        return getattr(sqlite3, "LEGACY_TRANSACTION_CONTROL", None)


def sqlite_thread(
    connection: DBAPIConnection,
) -> Callable[[Callable[[sqlite3.Connection], T]], T] | None:
    """Return what runs a function in the thread of an aiosqlite connection, with sqlite3's connection.

    None for other drivers, and without the names: each method of a cursor then goes to the thread on its own.
    """
    driver: Any = getattr(connection, "driver_connection", None)
    is_known = hasattr(connection, "_handle_exception") and hasattr(driver, "_execute")
    return partial(_run_in_thread, connection, driver) if is_known and hasattr(driver, "_tx") else None


def _run_in_thread(connection: Any, driver: Any, function: Callable[[sqlite3.Connection], T]) -> T:
    try:
        result: T = wait_for(driver._execute(lambda: function(driver._conn)))
    except ValueError as error:
        # So that SQLAlchemy sees an error of the driver if the connection is closed.
        connection._handle_exception(error)
        raise
    return result
