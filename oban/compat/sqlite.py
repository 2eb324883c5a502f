"""Private names of aiosqlite, and how `sqlite3` itself commits."""

import sqlite3
from typing import Any

from sqlalchemy import Connection

from oban.compat.greenlets import wait_for


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
