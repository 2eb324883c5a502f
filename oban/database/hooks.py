"""What has to happen when the caller's transaction ends, or when a savepoint of it is rolled back.

Jobs enqueued in a transaction that is rolled back are new again, as instances are that a session inserted
itself: the same job can then be enqueued in the next attempt. Announcements are made at commit.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar
from weakref import WeakKeyDictionary, ref

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, SessionTransaction

from oban import compat

Action = Callable[[], None]


class TransactionHooks(ABC):
    """Actions for the end of a caller's transactions, each with the savepoint that it was added in."""

    def __init__(self) -> None:
        self._entries: list[tuple[Any, Action | None, list[Action]]] = []

    @abstractmethod
    def _innermost(self) -> Any:
        """The savepoint or transaction that an entry made now belongs to."""

    def add(self, commit: Action | None, undo: list[Action]) -> None:
        """Run `commit` after the commit, or `undo`, the last one first, after a rollback."""
        innermost = self._innermost()
        if commit is None and self._entries:
            last, _, actions = self._entries[-1]
            if last == innermost:
                # One entry for all calls in a transaction gives the garbage collector less to do.
                actions.extend(undo)
                return
        self._entries.append((innermost, commit, undo))

    def committed(self) -> None:
        entries, self._entries = self._entries, []
        for _, commit, _ in entries:
            if commit is not None:
                commit()

    def rolled_back(self, includes: Callable[[Any], bool] = lambda _: True) -> None:
        undone = [entry for entry in self._entries if includes(entry[0])]
        self._entries = [entry for entry in self._entries if not includes(entry[0])]
        for _, _, undo in reversed(undone):
            for action in reversed(undo):
                action()


class SessionHooks(TransactionHooks):
    """The hooks of a caller's session."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = ref(session)
        event.listen(session, "after_commit", self._after_commit)
        event.listen(session, "after_soft_rollback", self._after_rollback)
        event.listen(session, "after_transaction_end", self._after_end)

    @classmethod
    def of(cls, session: Session) -> "SessionHooks":
        """The hooks of a session, which live as long as it does."""
        hooks: SessionHooks = session.info.get(cls) or session.info.setdefault(cls, cls(session))
        return hooks

    def _innermost(self) -> SessionTransaction | None:
        session = self._session()
        if session is None:
            return None
        return session.get_nested_transaction() or session.get_transaction()

    def _after_commit(self, session: Session) -> None:
        # A released savepoint can still be rolled back with the transaction around it.
        if not session.in_nested_transaction():
            self.committed()

    def _after_rollback(self, _: Session, ended: SessionTransaction) -> None:
        self.rolled_back(lambda begun: _is_within(begun, ended))

    def _after_end(self, _: Session, ended: SessionTransaction) -> None:
        # A session that is closed reports no rollback.
        if ended.parent is None:
            self.rolled_back()


def _is_within(transaction: SessionTransaction | None, outer: SessionTransaction) -> bool:
    while transaction is not None:
        if transaction is outer:
            return True
        transaction = transaction.parent
    return False


class ConnectionHooks(TransactionHooks):
    """The hooks of a caller's connection."""

    _of: ClassVar[WeakKeyDictionary[Connection, "ConnectionHooks"]] = WeakKeyDictionary()

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        # A strong reference would keep the connection in the dictionary for ever.
        self._connection = ref(connection)
        event.listen(connection, "commit", lambda _: self.committed())
        event.listen(connection, "rollback", lambda _: self.rolled_back())
        event.listen(connection, "rollback_savepoint", self._after_rollback_to)

    @classmethod
    def of(cls, connection: Connection) -> "ConnectionHooks":
        """The hooks of a connection, which live as long as it does."""
        if connection not in cls._of:
            cls._of[connection] = cls(connection)
        return cls._of[connection]

    def _innermost(self) -> int:
        connection = self._connection()
        savepoint = None if connection is None else connection.get_nested_transaction()
        return 0 if savepoint is None else compat.savepoint_number(savepoint) or 0

    def _after_rollback_to(self, _: Connection, name: str, __: None) -> None:
        # Savepoints begun after this one are rolled back with it.
        number = compat.parse_savepoint(name)
        if number is not None:
            self.rolled_back(lambda begun: begun >= number)
