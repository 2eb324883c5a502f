"""The variants of the dialects for tests that move the clock: the time in a statement is a parameter."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement

from oban import clock
from oban.dialects.expressions import sql_literal
from oban.dialects.postgresql.dialect import PostgreSQL
from oban.dialects.sqlite.dialect import SQLite
from oban.types import UTCDateTime

# Read when a statement is executed. It has one name, so that there is one time in each statement.
_NOW = sa.bindparam("oban_now", type_=UTCDateTime, callable_=clock.now)


class MovedPostgreSQL(PostgreSQL):
    def now(self) -> ColumnElement[datetime]:
        # The server would have to guess the type where the parameter is the argument of a function.
        return sa.cast(_NOW, UTCDateTime)


class MovedSQLite(SQLite):
    def now(self) -> ColumnElement[datetime]:
        return _NOW

    def _time(self) -> ColumnElement[Any]:
        return _NOW

    def _error_time(self) -> ColumnElement[str]:
        return sa.func.strftime(sql_literal("%Y-%m-%dT%H:%M:%f000Z"), _NOW, type_=sa.Text)
