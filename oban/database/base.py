"""What the databases with asyncio and without share: lending a transaction, and what that announces."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from sqlalchemy import Connection, Engine, StaticPool
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from oban import clock, dialects
from oban.database import hooks
from oban.database.engines import KEPT, usual_isolation
from oban.database.fast.autocommit_pool import Keeper
from oban.database.session import ONE_BY_ONE, PREFIX, WAITING, Notice, Statements, is_plain, lent
from oban.dialects.base import NOTICES
from oban.errors import ConfigError, InvalidTarget, SchemaMissing, WouldDeadlock
from oban.models import Job

logger = logging.getLogger("oban.database")

P = ParamSpec("P")
T = TypeVar("T")

#: How often a transaction that lost to another one is run again, and the longest pause before it, in
#: seconds, which doubles each time. Not if it has taken longer than `PATIENCE` seconds: it has waited then.
ATTEMPTS = 10
PAUSE = 0.01
PATIENCE = 5.0

_ADVICE = (
    "pass the URL instead of an engine, with notifier='poll' or listen_url=…, or make the engine with"
    " connect_args={'statement_cache_size': 0, 'prepared_statement_cache_size': 0,"
    " 'prepared_statement_name_func': lambda: ''} (asyncpg) or connect_args={'prepare_threshold': None}"
    " (psycopg)"
)


def _schema(session: Session) -> str | None:
    """Where a session looks for tables that name no schema, if it says."""
    mapped = session.connection().get_execution_options().get("schema_translate_map") or {}
    schema: str | None = mapped.get(None)
    return schema


class BaseDatabase:
    """A database as one instance uses it: engine, prefix, and how a function gets its transaction."""

    def __init__(self, engine: Engine, *, owned: bool, prefix: str | None, pooled: bool) -> None:
        self._core = engine
        self._owns_engine = owned
        self.dialect = dialects.by_name(engine.dialect.name)
        if isinstance(engine.pool, StaticPool):
            raise ConfigError(
                "the engine's pool gives one connection to everybody at once, so that transactions would"
                " mix; use poolclass=AsyncAdaptedQueuePool (QueuePool without asyncio), pool_size=1,"
                " max_overflow=0, or pass the URL"
            )
        if prefix and not self.dialect.has_schemas:
            raise ConfigError(f"{self.dialect.name} has no schemas: leave out the prefix")
        # The connections of an application's engine all belong into its pool.
        self._keeper = Keeper(engine, KEPT if owned and not self.dialect.is_memory(engine.url) else 0)
        self.prefix = prefix
        self.pooled = pooled
        self._warned = False
        #: Called after a commit with what it announced, where the database does not tell by itself.
        self.on_notices: list[Callable[[list[Notice]], None]] = []

    def _session_for(self, function: Callable[..., object]) -> Session:
        """A session of our own, or what is enough for a function that only runs statements."""
        if is_plain(function):
            return cast(Session, Statements(self._core, self._info(), self._keeper))
        return Session(self._core, expire_on_commit=False, info=self._info())

    def _info(self) -> dict[str, Any]:
        """What a session of our own knows."""
        return {PREFIX: self.prefix, WAITING: []}

    def _carry_out(
        self,
        session: Session,
        function: Callable[Concatenate[Session, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        with session:
            self._begin(session)
            result = function(session, *args, **kwargs)
            session.commit()
        return result

    def _consult(
        self, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with Session(self._core, info=self._info()) as session:
            self._begin(session)
            return function(session, *args, **kwargs)

    def _finish(self, session: Session) -> None:
        """What is to be done after the commit."""
        for action in session.info[WAITING]:
            action()
        self._announce(session.info.get(NOTICES, []))

    def _begin(self, session: Session) -> None:
        """Begin a transaction of our own, at the isolation level that all statements are written for."""
        level = self.dialect.isolation
        usual = level is None or usual_isolation(self._core) == level
        session.info[ONE_BY_ONE] = usual and not self.pooled
        if not usual:
            session.connection(execution_options={"isolation_level": level})

    def _check_lent(self, *, writes: bool) -> None:
        """Raise `WouldDeadlock` where a job is about to wait for what its own session keeps."""
        if not self.dialect.single_writer or (connection := lent()) is None:
            return
        if self.dialect.is_memory(self._core.url):
            waits = connection.engine.pool is self._core.pool
        else:
            same = connection.engine.url.database == self._core.url.database
            waits = writes and same and self.dialect.has_locked(connection)
        if waits:
            raise WouldDeadlock(
                "this job's session has written already, and until it commits nobody else can: pass"
                " session=, or do this first"
            )

    def _lend(
        self,
        session: Session,
        function: Callable[Concatenate[Session, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        if dialects.for_bind(session) is not self.dialect:
            raise InvalidTarget(f"the session is not on {self.dialect.name}, as this Oban is")
        elsewhere = self.prefix is not None and _schema(session) != self.prefix
        if elsewhere and any(isinstance(held, Job) for held in (*session.new, *session.dirty)):
            raise InvalidTarget(
                f"the session would write jobs of its own to tables not in {self.prefix!r}; pass them"
                " to this Oban, or give the session's engine"
                f" execution_options(schema_translate_map={{None: {self.prefix!r}}})"
            )
        session.info[PREFIX] = self.prefix
        session.flush()
        result = function(session, *args, **kwargs)
        if elsewhere:
            # By itself, the session would load and write them where it looks for tables.
            for job in [held for held in session.identity_map.values() if isinstance(held, Job)]:
                session.expunge(job)
        if notices := session.info.pop(NOTICES, None):
            hooks.at_commit(session, lambda: self._announce(notices))
        return result

    def _join(
        self,
        connection: Connection,
        function: Callable[Concatenate[Session, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        if not connection.in_transaction():
            connection.begin()
        session = Session(connection, join_transaction_mode="rollback_only", expire_on_commit=False)
        hooks.join(session, connection)
        try:
            result = self._lend(session, function, *args, **kwargs)
            session.flush()
            session.expunge_all()
            return result
        finally:
            session.close()

    def _announce(self, notices: list[Notice]) -> None:
        if notices:
            for receive in self.on_notices:
                receive(notices)

    def _lost(self, error: DBAPIError, attempt: int, since: float) -> bool:
        """Whether a transaction lost to another one, so that it is worth being run again."""
        waited = clock.monotonic() - since >= PATIENCE
        return attempt < ATTEMPTS and not waited and self.dialect.is_transient(error)

    @contextmanager
    def _door(self) -> Iterator[None]:
        """The one place where a driver's error becomes one of Oban's."""
        try:
            yield
        except Exception as error:
            if isinstance(error, DBAPIError) and error.connection_invalidated:
                self._keeper.forget()
            if isinstance(error, DBAPIError) and self.dialect.is_missing_table(error):
                raise SchemaMissing(self.missing_schema()) from error
            if self.dialect.is_lost_statement(error) and not self._warned:
                self._warned = True
                logger.error(
                    "prepared statements get lost, as they do behind a pooler in transaction mode; %s",
                    _ADVICE,
                )
            raise

    def missing_schema(self) -> str:
        """What to tell somebody whose database has no Oban tables."""
        url = dialects.redacted(self._core.url)
        where = f" in the schema {self.prefix}" if self.prefix else ""
        option = f" --prefix {self.prefix}" if self.prefix else ""
        return (
            f"there are no Oban tables{where} in {url}; make them with"
            f" `oban install --database-url '{url}'{option}` (or `alembic upgrade head`)"
        )
