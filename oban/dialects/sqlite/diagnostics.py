"""`Diagnostics` for SQLite."""

import sqlite3

from sqlalchemy import Connection

from oban.dialects.diagnostics import Diagnostics, FileSpace


class SQLiteDiagnostics(Diagnostics):
    def version(self, connection: Connection) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    def space(self, connection: Connection) -> FileSpace:
        size, pages, free = (
            int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
            for name in ("page_size", "page_count", "freelist_count")
        )
        return FileSpace(size * pages, size * free)
