"""The session of the job that runs in this context, to check whether a call would wait for it forever."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session

from oban import dialects
from oban.database.binding import write_bind

#: Connections of watched engines that have run a statement that takes the write lock.
_written: WeakSet[Connection] = WeakSet()
_watched: WeakSet[Engine] = WeakSet()


class _Begun(NamedTuple):
    """A transaction of a session, as it was when it began."""

    connection: Connection
    #: Whether the driver was in a transaction at once, before the first statement of the session.
    early: bool
    changes: int

    def has_locked(self) -> bool:
        """Whether it keeps out all other writers."""
        dialect = dialects.for_bind(self.connection)
        if not dialect.in_transaction(self.connection):
            return False
        # The driver alone begins a transaction with the first statement that writes. With autocommit=False,
        # or after an event handler's BEGIN, there is one from the start.
        return not self.early or self.has_written()

    def has_written(self) -> bool:
        """Whether it may have written something, of a transaction that began early."""
        changes = dialects.for_bind(self.connection).total_changes(self.connection)
        return self.connection in _written or changes != self.changes


@dataclass(slots=True, weakref_slot=True)
class _JobScope:
    """The transactions that a job's session has begun."""

    transactions: list[_Begun] = field(default_factory=list)
    #: Whether the session has also begun one on a database of another kind.
    elsewhere: bool = False

    def begun(self, session: Session, transaction: object, connection: Connection) -> None:
        dialect = dialects.SUPPORTED.get(connection.dialect.name)
        if dialect is None or not dialect.single_writer:
            self.elsewhere = True
            return
        early, changes = dialect.in_transaction(connection), dialect.total_changes(connection)
        self.transactions.append(_Begun(connection, early, changes))


_scope: ContextVar[_JobScope | None] = ContextVar("oban.job_scope", default=None)
_scopes: WeakKeyDictionary[Session, _JobScope] = WeakKeyDictionary()


def watch(engine: Engine) -> None:
    """Notice which transactions of an engine for job sessions take the write lock.

    Needed where the driver is in a transaction before that. Listening makes every statement slower.
    """
    takes_lock = dialects.for_bind(engine).takes_lock

    def executed(connection: Connection, _: Any, statement: str, *__: Any) -> None:
        if takes_lock(statement):
            _written.add(connection)

    event.listen(engine, "after_cursor_execute", executed)
    _watched.add(engine)


@contextmanager
def job_session(session: Session) -> Iterator[None]:
    """Mark `session` as the one of the job whose code runs in this context."""
    scope = _JobScope()
    if dialects.for_bind(write_bind(session)).single_writer:
        event.listen(session, "after_begin", scope.begun)
        _scopes[session] = scope
    token = _scope.set(scope)
    try:
        yield
    finally:
        _scope.reset(token)


def job_transactions() -> list[_Begun]:
    """Return the open transactions of this context's job session, on single-writer databases."""
    scope = _scope.get()
    if scope is None:
        return []
    return [
        begun for begun in scope.transactions if not (begun.connection.closed or begun.connection.invalidated)
    ]


def has_only_read(session: Session) -> bool:
    """Whether it is certain that a job's session has written nothing, so that a rollback loses nothing."""
    scope = _scopes.get(session)
    return (scope is not None and not scope.elsewhere) and not any(
        begun.connection.engine not in _watched or begun.connection.closed or begun.has_written()
        for begun in scope.transactions
    )
