"""A view of a transaction, for functions that need the ids of the jobs that they insert before the commit."""

from typing import Any

from sqlalchemy import Connection, Executable, Result
from sqlalchemy.orm import Session

from oban.database.transaction import Action, Transaction


class InnerTransaction(Transaction):
    """The same transaction, in which actions that would wait for the commit run at once.

    The instances show their rows before the commit, so they must not leave the function that made them: the
    transaction can be rolled back.
    """

    def __init__(self, tx: Transaction) -> None:
        super().__init__(tx.dialect, tx.prefix, tx.history)
        self._tx = tx
        self.notices = tx.notices

    @property
    def session(self) -> Session:
        return self._tx.session

    def connection(self) -> Connection:
        return self._tx.connection()

    def execute(
        self, statement: Executable, parameters: Any = None, **options: Any
    ) -> "Result[*tuple[Any, ...]]":
        return self._tx.execute(statement, parameters, **options)

    def autocommit_next(self) -> None:
        """Nothing: more statements follow."""

    def after_commit(self, action: Action) -> None:
        action()

    def on_rollback(self, actions: list[Action]) -> None:
        """Nothing: the instances are thrown away."""
