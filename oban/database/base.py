"""What the asyncio and the sync database share: transactions, the caller's included, and errors."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, scoped_session

from oban import compat, dialects
from oban.database import inherited, loops, quoted_rows, schema_errors
from oban.database.binding import pinned, write_bind
from oban.database.driver_autocommit import refuse_without_begin, send_begin
from oban.database.engines import (
    AUTOCOMMIT_CONNECTIONS,
    DEFAULT_ISOLATION,
    LOST_STATEMENT_ADVICE,
    autocommits,
    has_level,
)
from oban.database.fast import FAST_PATH
from oban.database.fast.autocommit_pool import Owners
from oban.database.hooks import ConnectionHooks, SessionHooks, TransactionHooks
from oban.database.job_scope import job_transactions
from oban.database.joined import JoinedCaller, SyncCaller, joined_here
from oban.database.shared import SharedConnection
from oban.database.transaction import JoinedTransaction, Notice, OwnTransaction, Transaction
from oban.errors import ConfigError, InvalidTarget, WouldDeadlock, WrongLoop
from oban.models import Job
from oban.telemetry import Telemetry

logger = logging.getLogger("oban.database")

P = ParamSpec("P")
T = TypeVar("T")
#: A repository function.
Function = Callable[Concatenate[Transaction, P], T]


class BaseDatabase(ABC):
    """One instance's access to its database: the engine, the prefix, and how functions get a transaction."""

    #: The owners of the connections in the autocommit pool.
    _owners = Owners()

    def __init__(
        self, engine: Engine, *, owned: bool, prefix: str | None, pooled: bool, joined: JoinedCaller | None
    ) -> None:
        self._sync_engine = engine
        self._owns_engine = owned
        self.dialect = dialects.by_name(engine.dialect.name)
        if prefix and not self.dialect.has_schemas:
            raise ConfigError(f"{self.dialect.name} has no schemas: leave out the prefix")
        #: Whether the database exists only in this process: by its URL, until a node starts and asks it.
        self.in_memory = self.dialect.is_memory(engine.url)
        #: Whether the driver is in a transaction before the first statement that writes. Known to a node.
        self.begins_early = False
        self._own_shared: SharedConnection | JoinedCaller | None = joined or SharedConnection.of(engine)
        # An application's engine keeps all of its connections in its own pool.
        keeps = owned and not self.in_memory
        kept = AUTOCOMMIT_CONNECTIONS if keeps and not compat.cares_for_connections(engine.pool) else 0
        self._autocommit_pool = FAST_PATH.autocommit_pool(engine, kept, self._owners)
        self.prefix = prefix
        self.pooled = pooled
        self._warned = False
        #: Whether attempts that end in a transaction of this database are stored.
        self.history = True
        self.telemetry = Telemetry()
        #: Called after a commit with what it announced, on a database without channels.
        self.on_notices: list[Callable[[list[Notice]], None]] = []
        #: Called when the server has no connection left.
        self.on_full: Callable[[], None] | None = None
        inherited.follow(self)

    @abstractmethod
    def _make_locks(self) -> None:
        """Make the locks with which calls take turns."""

    def _renew(self) -> None:
        """Make a pool of its own for this process, which was forked from the one that made this object."""
        engine = self._sync_engine
        self._autocommit_pool.renew()
        if self._own_shared is not None:
            self._own_shared.renew()
        # A copy of a database in memory can be used, but not without the thread that asyncio's driver has.
        if not self.in_memory or engine.dialect.is_async:
            inherited.leave_alone(engine.pool)
            engine.dispose(close=inherited.can_close(engine))
        self.on_notices = []

    def _begin(self) -> OwnTransaction:
        """A transaction of our own, at the isolation level that all statements are written for."""
        inherited.check_process()
        return OwnTransaction(
            self._sync_engine,
            self.dialect,
            self.prefix,
            set_up=self._set_up,
            autocommit_pool=self._autocommit_pool if self._may_autocommit() else None,
            is_shared=self.shared is not None,
            history=self.history,
        )

    def _set_up(self, connection: Connection) -> None:
        """Let a connection begin transactions, at the level that all statements are written for."""
        if send_begin(connection, self.dialect):
            return
        level = self.dialect.isolation
        if level is None and autocommits(self._sync_engine):
            level = DEFAULT_ISOLATION
        if not has_level(self._sync_engine, level):
            connection.execution_options(isolation_level=level)

    def _may_autocommit(self) -> bool:
        """Whether a single statement means the same in autocommit as in a transaction."""
        engine = self._sync_engine
        # A pooler may send the messages of one statement to different servers.
        if self.pooled or self.shared is not None or not has_level(engine, self.dialect.isolation):
            return False
        # A listener can set something for a transaction, such as a role. In autocommit, it would be reset
        # before the statement.
        listens = compat.listens(engine, "begin") or compat.sessions_listen("after_begin")
        return not (listens or compat.pool_listens(engine.pool, "checkout"))

    def _commit(
        self, transaction: OwnTransaction, function: Function[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function in a transaction of our own and commit it; the caller calls `_finish` then."""
        shared = self.shared
        if shared is not None and (joined := self._transaction_to_join(shared)) is not None:
            return self._run_in_savepoint(joined, True, function, *args, **kwargs)
        with transaction:
            result = function(transaction, *args, **kwargs)
            transaction.commit()
        return result

    def _query(self, function: Function[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function that only reads."""
        shared = self.shared
        if shared is not None and (joined := self._transaction_to_join(shared)) is not None:
            return self._run_in_savepoint(joined, False, function, *args, **kwargs)
        try:
            with self._begin() as transaction:
                return function(transaction, *args, **kwargs)
        except DBAPIError as error:
            if not self.dialect.is_stale_plan(error):
                raise
        with self._begin() as transaction:
            return function(transaction, *args, **kwargs)

    @property
    def shared(self) -> SharedConnection | JoinedCaller | None:
        """The connection that calls without `session=` share with the application, if they have to."""
        return joined_here(self) or self._own_shared

    def missing_file(self) -> str | None:
        """Which file of a database that Oban opens itself does not exist, as a clause; None if none."""
        return self.dialect.missing_file(self._sync_engine.url) if self._owns_engine else None

    @property
    def joined(self) -> JoinedCaller | None:
        """The session or connection of the application whose transaction calls without `session=` join."""
        shared = self.shared
        return shared if isinstance(shared, JoinedCaller) else None

    @property
    def is_over(self) -> bool:
        """Whether it was created with a connection that is closed."""
        joined = self.joined
        return joined is not None and joined.is_over

    def _transaction_to_join(self, shared: SharedConnection | JoinedCaller) -> Connection | None:
        """The application's transaction that a call without `session=` is in, as it shares its connection."""
        connection = shared.transaction(self.dialect)
        if connection is None:
            shared.check(self._sync_engine, self.dialect)
        return connection

    def _run_in_savepoint(
        self,
        connection: Connection,
        writes: bool,
        function: Function[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a function in the application's transaction, which can go on if the function fails."""
        if "attach" in kwargs:
            # Jobs that are enqueued are new again after a rollback, as with `session=`.
            kwargs["attach"] = True
        # There is no savepoint without a transaction.
        refuse_without_begin(connection, self.dialect)
        with connection.begin_nested():
            return self._run_on_connection(connection, writes, function, *args, **kwargs)

    def _finish(self, transaction: OwnTransaction) -> None:
        transaction.finish()
        self.announce(transaction.notices)

    def announce(self, notices: list[Notice]) -> None:
        """Tell this process what a transaction has announced."""
        if notices:
            for receive in tuple(self.on_notices):
                receive(notices)

    def join_sync(
        self, caller: SyncCaller, writes: bool, function: Function[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a repository function in a sync caller's transaction, neither committing nor rolling back."""
        try:
            if isinstance(caller, scoped_session):
                caller = caller()
            if isinstance(caller, Session):
                return self._run_on_session(caller, writes, function, *args, **kwargs)
            if isinstance(caller, Connection):
                return self._run_on_connection(caller, writes, function, *args, **kwargs)
        except Exception as error:
            self._translate(error)
            raise
        raise InvalidTarget(f"session must be a Session or Connection, not {type(caller).__name__}")

    def _run_on_session(
        self, session: Session, writes: bool, function: Function[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function in the transaction of the caller's session."""
        return self._run_joined(session, writes, lambda: SessionHooks.of(session), function, *args, **kwargs)

    def _run_on_connection(
        self,
        connection: Connection,
        writes: bool,
        function: Function[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a function in the transaction of the caller's connection."""
        if not connection.in_transaction():
            connection.begin()
        session = Session(connection, join_transaction_mode="rollback_only", expire_on_commit=False)
        try:
            result = self._run_joined(
                session, writes, lambda: ConnectionHooks.of(connection), function, *args, **kwargs
            )
            session.flush()
            session.expunge_all()
            return result
        finally:
            session.close()

    def _run_joined(
        self,
        session: Session,
        writes: bool,
        hooks: Callable[[], TransactionHooks],
        function: Function[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        bind = write_bind(session)
        if dialects.for_bind(bind) is not self.dialect:
            raise InvalidTarget(f"the session is not on {self.dialect.name}, as this Oban is")
        transaction = JoinedTransaction(session, bind, self.dialect, self.prefix, hooks, self.history)
        transaction.mute_two_phase()
        elsewhere = self.prefix is not None and transaction.mapped_schema() != self.prefix
        if elsewhere and any(isinstance(instance, Job) for instance in (*session.new, *session.dirty)):
            raise InvalidTarget(
                f"the session would write jobs of its own to tables not in {self.prefix!r}; pass them"
                " to this Oban, or give the session's engine"
                f" execution_options(schema_translate_map={{None: {self.prefix!r}}})"
            )
        # Connects, if the session has not done so yet.
        connection = transaction.connection()
        loops.refuse_of_another(connection)
        if writes:
            refuse_without_begin(connection, self.dialect)
        session.flush()
        try:
            with pinned(session):
                result = function(transaction, *args, **kwargs)
        except DBAPIError as error:
            # The session can be on another database than this client.
            url = connection.engine.url
            if schema_error := schema_errors.explain(error, self.dialect, url, self.prefix):
                raise schema_error from None
            raise
        if elsewhere:
            # On its own, the session would load and write them in the schema where it looks for tables.
            for job in [each for each in session.identity_map.values() if isinstance(each, Job)]:
                session.expunge(job)
        if notices := transaction.notices:
            hooks().add(lambda: self.announce(notices), [])
        return result

    def _check_deadlock(self, *, writes: bool) -> None:
        """Raise `WouldDeadlock` where a job would wait for the lock that its own session has."""
        # Where the connection is shared, the call is part of the job's transaction.
        if not self.dialect.single_writer or self.shared is not None:
            return
        for begun in job_transactions():
            engine = begun.connection.engine
            if self.in_memory:
                waits = engine.pool is self._sync_engine.pool
            else:
                same_file = self.dialect.same_file(engine.url, self._sync_engine.url)
                waits = writes and same_file and begun.has_locked()
            if waits:
                raise WouldDeadlock(
                    "this job's session has written already, and until it commits nobody else can: pass"
                    " session=, or do this first"
                )

    def _translate(self, error: Exception) -> None:
        """Raise Oban's own error for a driver's error, where there is one, and react to lost connections.

        Its callers catch the error and raise it again after this. A context manager would take a tenth of the
        time of `enqueue`.
        """
        if self.on_full is not None and self.dialect.is_full(error.__cause__ or error):
            self.on_full()
        if isinstance(error, DBAPIError):
            quoted_rows.hide(error)
            if error.connection_invalidated:
                self._autocommit_pool.invalidate_all()
            url = self._sync_engine.url
            if schema_error := schema_errors.explain(error, self.dialect, url, self.prefix):
                raise schema_error from None
            if problem := self.dialect.refused_as(error, url):
                raise ConfigError(problem) from error
        if loops.is_of_wrong_loop(error):
            raise WrongLoop(f"{loops.OF_ANOTHER_LOOP}; {loops.ADVICE}") from error
        if self.dialect.is_lost_statement(error) and not self._warned:
            self._warned = True
            logger.error(
                "prepared statements get lost, as they do behind a pooler in transaction mode; %s",
                LOST_STATEMENT_ADVICE,
            )
