"""Transactions on connections whose driver commits each statement on its own.

An application can put its driver into this mode without SQLAlchemy, in `connect_args` or in a `connect`
event. SQLAlchemy then begins and commits transactions that the database knows nothing of.
"""

from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, event

from oban import compat
from oban.database.engines import DEFAULT_ISOLATION, autocommits
from oban.dialects.base import Dialect
from oban.errors import InvalidTarget


def send_begin(connection: Connection, dialect: Dialect) -> bool:
    """Let the transactions of a connection that is not in one begin and end with statements, where needed.

    Returns whether that is needed. A connection in SQLAlchemy's own AUTOCOMMIT mode can leave it instead.
    """
    if not dialect.driver_autocommits(connection) or autocommits(connection.engine):
        return False
    # As SQLAlchemy's documentation advises for SQLite, a listener sends BEGIN, and the driver commits.
    if not (dialect.single_writer and compat.listens(connection.engine, "begin")):
        event.listen(connection, "begin", lambda begun: begun.exec_driver_sql(dialect.begin_statement))
        event.listen(connection, "commit", partial(_end, dialect, "COMMIT"))
        event.listen(connection, "rollback", partial(_end, dialect, "ROLLBACK"))
    return True


def _end(dialect: Dialect, statement: str, connection: Connection) -> None:
    # A lost connection has no transaction, and SQLite ends one itself after some errors.
    if not connection.invalidated and dialect.in_transaction(connection):
        connection.exec_driver_sql(statement)


def send_begins(engine: Engine, dialect: Dialect) -> None:
    """Do the same for every connection that an engine hands out."""
    connect = engine.connect

    def connect_and_send(*args: Any, **options: Any) -> Connection:
        connection = connect(*args, **options)
        send_begin(connection, dialect)
        return connection

    engine.connect = connect_and_send  # type: ignore[method-assign]


def refuse_without_begin(connection: Connection, dialect: Dialect) -> None:
    """Raise `InvalidTarget` if the driver commits each statement on a connection on its own."""
    # A listener may have sent BEGIN.
    if dialect.driver_autocommits(connection) and not dialect.in_transaction(connection):
        level = dialect.isolation or DEFAULT_ISOLATION
        raise InvalidTarget(
            "the session is in AUTOCOMMIT mode, so that locks are lost at once and nothing can be rolled"
            " back; leave out session=, or make the session with"
            f" engine.execution_options(isolation_level={level!r})"
        )
