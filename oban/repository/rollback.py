"""Jobs that were enqueued in the caller's transaction are new again when that is rolled back.

That is what SQLAlchemy does for instances that a session inserted itself: the same job can then be
enqueued in the next attempt.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, SessionTransaction, make_transient

from oban.models import Job

_ENLISTED = "oban.enlisted"
_JOINED = "oban.joined"


def join(session: Session, connection: Connection) -> None:
    """Say that a session works in the transaction that a caller has begun on a connection."""
    session.info[_JOINED] = connection


def enlist(session: Session, jobs: list[Job]) -> None:
    """Remember jobs, as they are before they are inserted, until the transaction ends."""
    undo = [_undo(job) for job in jobs]
    if (connection := session.info.get(_JOINED)) is not None:
        _until_the_end(connection, undo)
        return
    if _ENLISTED not in session.info:
        session.info[_ENLISTED] = []
        event.listen(session, "after_soft_rollback", _rolled_back)
        event.listen(session, "after_commit", _committed)
    begun = session.get_nested_transaction() or session.get_transaction()
    session.info[_ENLISTED].append((begun, undo))


def _undo(job: Job) -> Callable[[], None]:
    before = {key: value for key, value in job.__dict__.items() if key != "_sa_instance_state"}

    def undo() -> None:
        make_transient(job)
        for column in Job.__mapper__.column_attrs:
            job.__dict__.pop(column.key, None)
        job.__dict__.update(before)

    return undo


def _until_the_end(connection: Connection, undo: list[Callable[[], None]]) -> None:
    def rolled_back(_: Connection) -> None:
        for action in undo:
            action()
        undo.clear()

    event.listen(connection, "rollback", rolled_back)
    event.listen(connection, "commit", lambda _: undo.clear())


def _rolled_back(session: Session, ended: SessionTransaction) -> None:
    kept = []
    for begun, undo in session.info[_ENLISTED]:
        if _within(begun, ended):
            for action in undo:
                action()
        else:
            kept.append((begun, undo))
    session.info[_ENLISTED] = kept


def _within(transaction: Any, outer: SessionTransaction) -> bool:
    while transaction is not None:
        if transaction is outer:
            return True
        transaction = transaction.parent
    return False


def _committed(session: Session) -> None:
    # Released, a savepoint is still a part of what may be rolled back.
    if not session.in_nested_transaction():
        session.info[_ENLISTED] = []
