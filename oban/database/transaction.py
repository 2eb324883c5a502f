"""`Transaction`: what every repository function works in, whoever begins and commits it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

from sqlalchemy import Connection, Engine, Executable, NestedTransaction, Result, Row
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from oban import compat, ddl, dialects
from oban.database import binding
from oban.database.binding import Bind
from oban.database.fast import FAST_PATH
from oban.database.fast.autocommit_pool import AutocommitConnection, AutocommitPool
from oban.database.hooks import TransactionHooks
from oban.dialects.base import Dialect
from oban.errors import InvalidTarget

#: A channel and what is announced on it.
Notice = tuple[str, dict[str, Any]]
Action = Callable[[], None]
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})

_SHARED_ADVICE = (
    "the engine has one connection for everybody, and another task or thread has ended this transaction: pass"
    " session=, or use a pool that gives each transaction a connection to itself"
)


class Transaction(ABC):
    """One transaction on Oban's tables.

    A repository function takes one as its first argument. It runs statements, uses the ORM session and
    announces changes, and it neither commits nor rolls back.
    """

    def __init__(self, dialect: Dialect, prefix: str | None, history: bool) -> None:
        self.dialect = dialect.for_current_clock()
        self.prefix = prefix
        #: Whether attempts that end in this transaction are stored in `oban_attempts`.
        self.history = history
        #: What this process is to be told after the commit, on a database without channels.
        self.notices: list[Notice] = []

    @property
    @abstractmethod
    def session(self) -> Session:
        """The ORM session that works in this transaction."""

    @abstractmethod
    def connection(self) -> Connection:
        """The connection that this transaction is on."""

    @abstractmethod
    def execute(
        self, statement: Executable, parameters: Any = None, **options: Any
    ) -> "Result[*tuple[Any, ...]]":
        """Run a statement on Oban's tables; `options` are execution options."""

    @abstractmethod
    def autocommit_next(self) -> None:
        """Let the one statement that follows commit on its own, where that is possible.

        It then takes one round trip instead of three.
        """

    def end_autocommit(self) -> None:  # noqa: B027 - in a transaction, there is nothing to end
        """Let the statements that follow be one transaction, after one that `autocommit_next` was for."""

    @abstractmethod
    def after_commit(self, action: Action) -> None:
        """Run `action` once the changes are visible to the caller.

        That is after the commit of Oban's own transaction. In the caller's transaction it is now,
        because the caller sees what its own transaction has changed.
        """

    @abstractmethod
    def on_rollback(self, actions: list[Action]) -> None:
        """Run `actions`, the last one first, if the caller's transaction or savepoint is rolled back."""

    def mapped_schema(self) -> str | None:
        """The schema in which this connection looks for tables that name none, if it was told so."""
        mapping = self.connection().get_execution_options().get("schema_translate_map") or {}
        schema: str | None = mapping.get(None)
        return schema

    def schema(self) -> str | None:
        """The schema of Oban's tables, after which the channels are named. None without schemas."""
        return self.prefix or self.mapped_schema() or self.dialect.table_schema(self.connection())

    def orm_execute(
        self, statement: Executable, parameters: Any = None, **options: Any
    ) -> "Result[*tuple[Any, ...]]":
        """Run a statement through the ORM session, as `execute` does, to load or synchronize instances."""
        return self.session_execute(statement, parameters, self._in_schema(options))

    def session_execute(
        self, statement: Executable, parameters: Any = None, options: Mapping[str, Any] = NO_OPTIONS
    ) -> "Result[*tuple[Any, ...]]":
        """Run a statement through the ORM session, which looks for all tables where it always does."""
        return self.session.execute(statement, parameters, execution_options=options)

    def attach(self, instances: Iterable[object]) -> None:
        """Add instances to the ORM session."""
        FAST_PATH.add_all(self.session, instances)

    def rows(
        self, statement: Executable, parameters: dict[str, Any], before: Executable | None = None
    ) -> Sequence[Row[Any]]:
        """All rows of a statement that is built once and always gets the same parameter names.

        The statement `before`, which returns no rows, runs first with the same parameters.
        """
        if before is not None:
            self.execute(before, parameters)
        return self.execute(statement, parameters).all()

    def notify(self, channel: str, payloads: Sequence[dict[str, Any]]) -> None:
        """Announce payloads on a channel when, and only if, this transaction commits."""
        if self.dialect.listens:
            self.dialect.notify(self.connection(), self.prefix or self.mapped_schema(), channel, payloads)
        else:
            self.notices.extend((channel, payload) for payload in payloads)

    def _in_schema(self, options: dict[str, Any]) -> dict[str, Any]:
        if self.prefix:
            options["schema_translate_map"] = {None: self.prefix}
        return options


class OwnTransaction(Transaction):
    """A transaction that Oban begins and commits, as a context manager.

    It works on a plain connection. The ORM session is made when a function first asks for it, because
    setting one up takes longer than the statement that inserts a job.
    """

    def __init__(
        self,
        engine: Engine,
        dialect: Dialect,
        prefix: str | None,
        *,
        set_up: Callable[[Connection], None],
        autocommit_pool: AutocommitPool | None,
        is_shared: bool = False,
        history: bool = True,
    ) -> None:
        """`set_up` lets a connection begin transactions at the right level; `autocommit_pool` is None where a
        statement cannot commit on its own. With `is_shared`, others use the connection meanwhile, and a
        savepoint tells whether they have ended the transaction."""
        super().__init__(dialect, prefix, history)
        self._engine = engine
        self._set_up = set_up
        self._autocommit_pool = autocommit_pool
        self._autocommit: AutocommitConnection | None = None
        self._connection: Connection | None = None
        self._session: Session | None = None
        self._after_commit: list[Action] = []
        self._is_shared = is_shared
        self._savepoint: NestedTransaction | None = None

    @property
    def session(self) -> Session:
        if self._session is None:
            self._session = Session(self.connection(), expire_on_commit=False)
        return self._session

    def connection(self) -> Connection:
        if self._connection is None:
            self._connection = dialects.connect(self._engine)
            # A listener of `engine_connect` may have begun the transaction, whose level cannot change then.
            if not self._connection.in_transaction():
                self._set_up(self._connection)
            if compat.sessions_listen("after_begin"):
                # They set the transaction up, so that even one without the ORM begins in a session.
                self.session.connection()
            if self._is_shared:
                self._savepoint = self._connection.begin_nested()
        return self._connection

    def execute(
        self, statement: Executable, parameters: Any = None, **options: Any
    ) -> "Result[*tuple[Any, ...]]":
        return self.connection().execute(statement, parameters, execution_options=self._in_schema(options))

    def rows(
        self, statement: Executable, parameters: dict[str, Any], before: Executable | None = None
    ) -> Sequence[Row[Any]]:
        if self._autocommit is not None and before is None:
            return self._autocommit.rows(statement, parameters, self.execute)
        statements = FAST_PATH.statements
        # Where a round trip takes longer than SQLAlchemy's execution, statements that matter commit alone.
        if statements is None or self.dialect.is_remote or self._is_shared:
            return super().rows(statement, parameters, before)
        connection = self.connection()
        if not connection.in_transaction():
            connection.begin()
        return statements.rows(None, connection, self.prefix, statement, parameters, self.execute, before)

    def autocommit_next(self) -> None:
        if self._autocommit_pool is not None and self._connection is None:
            self._autocommit = self._autocommit_pool.acquire()
            self._connection = self._autocommit.connection

    def end_autocommit(self) -> None:
        if self._autocommit is not None and self._autocommit_pool is not None:
            self._autocommit_pool.release(self._autocommit, failed=False)
            self._autocommit = self._connection = None

    def after_commit(self, action: Action) -> None:
        self._after_commit.append(action)

    def on_rollback(self, actions: list[Action]) -> None:
        """Nothing: instances show what was changed only after the commit."""

    def commit(self) -> None:
        """Commit what was done so far."""
        if self._session is not None:
            self._session.commit()
        if self._savepoint is not None:
            self._release(self._savepoint)
        if self._connection is not None:
            self._connection.commit()

    @staticmethod
    def _release(savepoint: NestedTransaction) -> None:
        try:
            savepoint.commit()
        except DBAPIError as error:
            error.add_detail(_SHARED_ADVICE)
            raise

    def finish(self) -> None:
        """Run the actions that wait for the commit."""
        for action in self._after_commit:
            action()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._session is not None:
            self._session.close()
        if self._autocommit is not None and self._autocommit_pool is not None:
            self._autocommit_pool.release(self._autocommit, failed=kind is not None)
        elif self._connection is not None:
            self._connection.close()


class JoinedTransaction(Transaction):
    """A transaction of the caller's, who commits it or rolls it back; Oban joins it through a session.

    Everything happens on the connection of the session for `bind`. `hooks` is called when the first action
    has to wait for the end, as listening to a session takes time.
    """

    def __init__(
        self,
        session: Session,
        bind: Bind,
        dialect: Dialect,
        prefix: str | None,
        hooks: Callable[[], TransactionHooks],
        history: bool = True,
    ) -> None:
        super().__init__(dialect, prefix, history)
        self._session = session
        self._bind = bind
        self._bind_arguments = binding.arguments(session, bind)
        self._hooks = hooks
        self._connection: Connection | None = None

    @property
    def session(self) -> Session:
        return self._session

    def connection(self) -> Connection:
        if self._connection is None:
            try:
                self._connection = self._session.connection(bind_arguments={"bind": self._bind})
            except Exception as error:
                dialects.check_connecting(self._bind.engine.url, error)
                raise
        return self._connection

    def mute_two_phase(self) -> None:
        """Announce nothing in a transaction that will be prepared, because the database would refuse that.

        Raises `InvalidTarget` if the database has no two-phase commit.
        """
        # Only a session with `twophase`, or one on a connection of the caller's, is in such a transaction.
        if not self._session.twophase and isinstance(self._bind, Engine):
            return
        try:
            connection = self.connection()
        except NotImplementedError:
            raise InvalidTarget(
                f"{self.dialect.name} has no two-phase commit: make the session without twophase=True"
            ) from None
        ddl.mute_two_phase(connection)

    def execute(
        self, statement: Executable, parameters: Any = None, **options: Any
    ) -> "Result[*tuple[Any, ...]]":
        return self.orm_execute(statement, parameters, **options)

    def session_execute(
        self, statement: Executable, parameters: Any = None, options: Mapping[str, Any] = NO_OPTIONS
    ) -> "Result[*tuple[Any, ...]]":
        return self._session.execute(
            statement, parameters, execution_options=options, bind_arguments=self._bind_arguments
        )

    def rows(
        self, statement: Executable, parameters: dict[str, Any], before: Executable | None = None
    ) -> Sequence[Row[Any]]:
        if (statements := FAST_PATH.statements) is None:
            return super().rows(statement, parameters, before)
        return statements.rows(
            self._session, self.connection(), self.prefix, statement, parameters, self.execute, before
        )

    def autocommit_next(self) -> None:
        """Nothing: the statement belongs to the caller's transaction."""

    def after_commit(self, action: Action) -> None:
        action()

    def on_rollback(self, actions: list[Action]) -> None:
        self._hooks().add(None, actions)
