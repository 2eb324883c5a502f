"""The session of the job that runs in this context, for the check that nothing waits for it in vain."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session

from oban import dialects


@dataclass(slots=True)
class _JobScope:
    """The connection of a job's session, once it has begun a transaction."""

    connection: Connection | None = None

    def begun(self, session: Session, transaction: object, connection: Connection) -> None:
        self.connection = connection


_scope: ContextVar[_JobScope | None] = ContextVar("oban.job_scope", default=None)


@contextmanager
def job_session(session: Session) -> Iterator[None]:
    """Mark `session` as the one of the job whose code runs in this context."""
    scope = _JobScope()
    if dialects.for_bind(session).single_writer:
        event.listen(session, "after_begin", scope.begun)
    token = _scope.set(scope)
    try:
        yield
    finally:
        _scope.reset(token)


def job_connection() -> Connection | None:
    """The connection that the session of this context's job is using now, on a single-writer database."""
    scope = _scope.get()
    connection = None if scope is None else scope.connection
    if connection is None or connection.closed or connection.invalidated:
        return None
    return connection
