"""What has to happen when the caller's transaction ends, or a savepoint of it is rolled back.

Jobs that were enqueued in it are new again after a rollback, as instances are that a session inserted itself:
the same job can then be enqueued in the next attempt. What is announced, is announced at commit.
"""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, SessionTransaction, make_transient

from oban.database.session import WAITING
from oban.models import Job

Action = Callable[[], None]

_LEDGER = "oban.ledger"
_JOINED = "oban.joined"


def join(session: Session, connection: Connection) -> None:
    """Say that a session works in the transaction that a caller has begun on a connection."""
    session.info[_JOINED] = connection


def enlist(session: Session, jobs: list[Job]) -> None:
    """Remember jobs, as they are before they are inserted, until the transaction ends."""
    on_rollback(session, [_undo(job) for job in jobs])


def on_rollback(session: Session, actions: list[Action]) -> None:
    """Do some things, the last one first, if the caller's transaction, or its savepoint, is rolled back.

    In a transaction of our own, nothing is shown before it is stored.
    """
    if WAITING not in session.info:
        _note(session, None, actions)


def at_commit(session: Session, action: Action) -> None:
    """Do something once the caller's transaction is committed, with the savepoint that it is in now."""
    _note(session, action, [])


class _Ledger:
    """Entries of one session or connection, each with the transaction or savepoint that it was made in."""

    def __init__(self) -> None:
        self.entries: list[tuple[Any, Action | None, list[Action]]] = []

    def committed(self) -> None:
        entries, self.entries = self.entries, []
        for _, commit, _ in entries:
            if commit is not None:
                commit()

    def rolled_back(self, within: Callable[[Any], bool] = lambda _: True) -> None:
        ended = [entry for entry in self.entries if within(entry[0])]
        self.entries = [entry for entry in self.entries if not within(entry[0])]
        for _, _, undo in reversed(ended):
            for action in reversed(undo):
                action()


class _OfSession(_Ledger):
    def __init__(self, session: Session) -> None:
        super().__init__()
        event.listen(session, "after_commit", self._after_commit)
        event.listen(session, "after_soft_rollback", self._after_rollback)
        event.listen(session, "after_transaction_end", self._after_end)

    def _after_commit(self, session: Session) -> None:
        # Released, a savepoint is still a part of what may be rolled back.
        if not session.in_nested_transaction():
            self.committed()

    def _after_rollback(self, _: Session, ended: SessionTransaction) -> None:
        self.rolled_back(lambda begun: _within(begun, ended))

    def _after_end(self, _: Session, ended: SessionTransaction) -> None:
        # A session that is closed tells of no rollback.
        if ended.parent is None:
            self.rolled_back()


def _within(transaction: SessionTransaction | None, outer: SessionTransaction) -> bool:
    while transaction is not None:
        if transaction is outer:
            return True
        transaction = transaction.parent
    return False


class _OfConnection(_Ledger):
    def __init__(self, connection: Connection) -> None:
        super().__init__()
        event.listen(connection, "commit", lambda _: self.committed())
        event.listen(connection, "rollback", lambda _: self.rolled_back())
        event.listen(connection, "rollback_savepoint", self._to_savepoint)

    def _to_savepoint(self, _: Connection, name: str, __: None) -> None:
        # Those that were begun after it go with it.
        self.rolled_back(lambda begun: begun >= _number(name))


def _number(savepoint: str) -> int:
    return int(savepoint.rpartition("_")[2])


_connections: WeakKeyDictionary[Connection, _OfConnection] = WeakKeyDictionary()


def _note(session: Session, commit: Action | None, undo: list[Action]) -> None:
    begun: Any
    ledger: _Ledger
    if (connection := session.info.get(_JOINED)) is not None:
        if connection not in _connections:
            _connections[connection] = _OfConnection(connection)
        ledger = _connections[connection]
        nested = connection.get_nested_transaction()
        # The event knows no more of a savepoint than its name, and no public name leads to that.
        begun = 0 if nested is None else _number(nested._savepoint)
    else:
        if _LEDGER not in session.info:
            session.info[_LEDGER] = _OfSession(session)
        ledger = session.info[_LEDGER]
        begun = session.get_nested_transaction() or session.get_transaction()
    ledger.entries.append((begun, commit, undo))


def _undo(job: Job) -> Action:
    before = {key: value for key, value in job.__dict__.items() if key != "_sa_instance_state"}

    def undo() -> None:
        make_transient(job)
        for column in Job.__mapper__.column_attrs:
            job.__dict__.pop(column.key, None)
        job.__dict__.update(before)

    return undo
