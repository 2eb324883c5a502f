"""How a repository function gets its transaction: one of its own, or the caller's.

The functions are sync, over a `Session`. Under asyncio they run in `AsyncSession.run_sync`.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import (
    URL,
    AsyncAdaptedQueuePool,
    Connection,
    Engine,
    Executable,
    Result,
    StaticPool,
    event,
    select,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    create_async_engine,
)
from sqlalchemy.orm import Session

from oban import dialects, encoding
from oban.dialects.base import NOTICES
from oban.errors import ConfigError, InvalidTarget, SchemaMissing
from oban.models import Job
from oban.repository import rollback

logger = logging.getLogger("oban.database")

P = ParamSpec("P")
T = TypeVar("T")
Notice = tuple[str, dict[str, Any]]
Caller = AsyncSession | AsyncConnection

_ADVICE = (
    "pass the URL instead of an engine, with notifier='poll' or listen_url=…, or make the engine with"
    " connect_args={'statement_cache_size': 0, 'prepared_statement_cache_size': 0,"
    " 'prepared_statement_name_func': lambda: ''} (asyncpg) or connect_args={'prepare_threshold': None}"
    " (psycopg)"
)
_PREFIX = "oban.prefix"
_WAITING = "oban.waiting"
_ONE_BY_ONE = "oban.one_by_one"
_ATTEMPTS = 10
#: Seconds that the server gives a statement beyond its timeout here, which is the one to be met.
SPARE = 1.0


def execute(
    session: Session, statement: Executable, parameters: Any = None, **options: Any
) -> "Result[*tuple[Any, ...]]":
    """Run a statement on Oban's tables, in the schema of the instance that uses the session."""
    if prefix := session.info.get(_PREFIX):
        options["schema_translate_map"] = {None: prefix}
    return session.execute(statement, parameters, execution_options=options)


def notify(session: Session, channel: str, payloads: Sequence[dict[str, Any]]) -> None:
    """Announce payloads on a channel when, and only if, the session's transaction commits."""
    dialects.of(session).notify(session, session.info.get(_PREFIX), channel, payloads)


def alone(session: Session) -> None:
    """Let the one statement that follows be a transaction by itself: one round trip instead of three.

    Not where it would then run at another isolation level, or as several messages of which each may
    go to another server behind a pooler. Then it is one of a transaction as ever.
    """
    if session.info.get(_ONE_BY_ONE, True):
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})


def when_stored(session: Session, action: Callable[[], None]) -> None:
    """Run `action` once what the session did is stored: after the commit of a transaction of our own.

    In the caller's transaction it runs now: whatever looks from inside of it sees the changes.
    """
    waiting: list[Callable[[], None]] | None = session.info.get(_WAITING)
    if waiting is None:
        action()
    else:
        waiting.append(action)


class Database:
    """A database as one instance uses it: engine, prefix, and transactions on them.

    `engine` is an `AsyncEngine`, which stays the caller's, or a URL, for which an engine is made
    and disposed of. `timeout` is how many seconds a transaction of our own may take, the wait for a
    connection included. `pooled` says that it may lead to a pooler in transaction mode: then nothing
    relies on a session that lasts longer than a transaction. Raises `ConfigError` for what cannot be used.
    """

    def __init__(
        self,
        engine: AsyncEngine | str | URL,
        prefix: str | None = None,
        *,
        timeout: float | None = None,
        pooled: bool = False,
    ) -> None:
        self._owns_engine = not isinstance(engine, AsyncEngine)
        if isinstance(engine, (str, URL)):
            engine = make_engine(engine, pooled)
        elif not isinstance(engine, AsyncEngine):
            raise ConfigError(f"an AsyncEngine or a database URL is needed, not {type(engine).__name__}")
        self.engine = engine
        self.dialect = dialects.named(engine.dialect.name)
        if isinstance(engine.pool, StaticPool):
            raise ConfigError(
                "the engine's pool gives one connection to everybody at once, so that transactions would"
                " mix; use poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0, or pass the URL"
            )
        if prefix and not self.dialect.has_schemas:
            raise ConfigError(f"{self.dialect.name} has no schemas: leave out the prefix")
        self.prefix = prefix
        self.timeout = timeout
        self.pooled = pooled
        self._warned = False
        #: Called after a commit with what it announced, where the database does not tell by itself.
        self.on_notices: list[Callable[[list[Notice]], None]] = []
        self._writer = asyncio.Lock() if self.dialect.single_writer else nullcontext()

    def sibling(self, connections: int, timeout: float, *, own_loop: bool = False) -> "Database":
        """The same database through a pool of its own, of `connections` at most; dispose of it.

        With `own_loop`, for use on another event loop. A database in memory has one connection, which
        all share.
        """
        if self.dialect.is_memory(self.engine.url):
            return self
        engine = _engine_beside(self.engine, connections, timeout)
        # Behind a pooler, the connection is not ours to set up.
        if not self.pooled and (limit := self.dialect.limit_statement(timeout + SPARE)):
            event.listen(engine.sync_engine.pool, "connect", partial(_run_once, limit))
        twin = Database(engine, self.prefix, timeout=timeout, pooled=self.pooled)
        twin._owns_engine = True
        if not own_loop:
            twin._writer = self._writer
            twin.on_notices = self.on_notices
        return twin

    async def prepare(self) -> None:
        """Set up the database for a runner; raises `SchemaMissing` if there are no tables."""
        async with self._door(), self.engine.connect() as connection:
            connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.run_sync(self.dialect.prepare)
        await self.read(lambda session: execute(session, select(Job.id).limit(0)))

    async def dispose(self) -> None:
        """Close the connections of an engine that was made here."""
        if self._owns_engine:
            await self.engine.dispose()

    async def write(
        self, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a repository function in a transaction of its own, again if it lost to another one."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._whole(self._transact(function, *args, **kwargs))
            except DBAPIError as error:
                if attempt == _ATTEMPTS or not self.dialect.is_transient(error):
                    raise
            await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - jitter
        raise AssertionError("unreachable")

    async def _transact(
        self, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        def whole(session: Session) -> T:
            with session:
                self._begin(session)
                result = function(session, *args, **kwargs)
                session.commit()
                return result

        async with self._writer, self._door():
            session = self._session()
            # One visit to the sync side: commit and close from here would be a greenlet each.
            result = await session.run_sync(whole)
        for action in session.info[_WAITING]:
            action()
        self._announce(session.info.get(NOTICES, []))
        return result

    async def read(
        self, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a repository function that only reads."""
        return await self._whole(self._look(function, *args, **kwargs))

    async def _look(
        self, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        def whole(session: Session) -> T:
            self._begin(session)
            return function(session, *args, **kwargs)

        async with self._session() as session, self._door():
            return await session.run_sync(whole)

    async def _whole(self, transaction: Coroutine[Any, Any, T]) -> T:
        """Await a transaction; where it must not be interrupted, a cancellation waits for its end."""
        if self.dialect.interruptible:
            async with asyncio.timeout(self.timeout):
                return await transaction
        task = asyncio.create_task(transaction)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            raise

    async def within(
        self,
        caller: Caller,
        function: Callable[Concatenate[Session, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a repository function in the caller's transaction, neither committing nor rolling back."""
        async with self._door():
            if isinstance(caller, AsyncSession):
                return await caller.run_sync(lambda session: self._lend(session, function, *args, **kwargs))
            if isinstance(caller, AsyncConnection):
                return await caller.run_sync(
                    lambda connection: self._join(connection, function, *args, **kwargs)
                )
        raise InvalidTarget(
            f"session must be an AsyncSession or AsyncConnection, not {type(caller).__name__}"
        )

    async def run(
        self,
        caller: Caller | None,
        function: Callable[Concatenate[Session, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`within` the caller's transaction if there is one, else `write` in one of its own."""
        if caller is None:
            return await self.write(function, *args, **kwargs)
        return await self.within(caller, function, *args, **kwargs)

    async def look(
        self,
        caller: Caller | None,
        function: Callable[Concatenate[Session, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`within` the caller's transaction if there is one, else `read`."""
        if caller is None:
            return await self.read(function, *args, **kwargs)
        return await self.within(caller, function, *args, **kwargs)

    def _session(self) -> AsyncSession:
        return AsyncSession(self.engine, expire_on_commit=False, info={_PREFIX: self.prefix, _WAITING: []})

    def _begin(self, session: Session) -> None:
        """Begin a transaction of our own, at the isolation level that all statements are written for."""
        level = self.dialect.isolation
        usual = level is None or _usual_isolation(self.engine) == level
        session.info[_ONE_BY_ONE] = usual and not self.pooled
        if not usual:
            session.connection(execution_options={"isolation_level": level})

    def _lend(
        self,
        session: Session,
        function: Callable[Concatenate[Session, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        if dialects.of(session) is not self.dialect:
            raise InvalidTarget(f"the session is not on {self.dialect.name}, as this Oban is")
        session.info[_PREFIX] = self.prefix
        session.flush()
        result = function(session, *args, **kwargs)
        if NOTICES in session.info:
            event.listen(session, "after_commit", self._after_commit, once=True)
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
        rollback.join(session, connection)
        try:
            result = self._lend(session, function, *args, **kwargs)
            session.flush()
            if notices := session.info.pop(NOTICES, None):
                event.listen(connection, "commit", lambda _: self._announce(notices), once=True)
            session.expunge_all()
            return result
        finally:
            session.close()

    def _after_commit(self, session: Session) -> None:
        self._announce(session.info.pop(NOTICES, []))

    def _announce(self, notices: list[Notice]) -> None:
        if notices:
            for receive in self.on_notices:
                receive(notices)

    @asynccontextmanager
    async def _door(self) -> AsyncIterator[None]:
        """The one place where a driver's error becomes one of Oban's."""
        try:
            yield
        except Exception as error:
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
        url = dialects.shown(self.engine.url)
        where = f" in the schema {self.prefix}" if self.prefix else ""
        option = f" --prefix {self.prefix}" if self.prefix else ""
        return (
            f"there are no Oban tables{where} in {url}; make them with"
            f" `oban install --database-url '{url}'{option}` (or `alembic upgrade head`)"
        )


def _engine_beside(engine: AsyncEngine, connections: int, timeout: float) -> AsyncEngine:
    """An engine that connects just as another one does, with its events, but through its own pool."""
    source = engine.sync_engine.pool
    pool = AsyncAdaptedQueuePool(
        # The pool knows how to connect whatever way the application chose: a URL, connect_args, a
        # creator, a token made anew for each connection. No public name leads to it.
        source._creator,
        pool_size=connections,
        max_overflow=0,
        recycle=source._recycle,
        pre_ping=source._pre_ping,
        reset_on_return=source._reset_on_return,
        timeout=timeout,
        dialect=engine.dialect,
        _dispatch=source.dispatch,
    )
    options = engine.sync_engine.get_execution_options()
    twin = Engine(pool, engine.dialect, engine.url, execution_options=options)
    # Of connections, too: one that begins transactions its own way, say.
    twin.dispatch._update(engine.sync_engine.dispatch, only_propagate=False)
    twin._has_events = engine.sync_engine._has_events
    return AsyncEngine(twin)


def _run_once(statement: str, connection: DBAPIConnection, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute(statement)
    cursor.close()
    connection.commit()


def _usual_isolation(engine: AsyncEngine) -> str | None:
    """The level of a transaction that asks for none; None if that is not known, or no level at all."""
    dialect = engine.sync_engine.dialect
    # Where the engine was made with a level, only this says so for AUTOCOMMIT.
    asked = engine.get_execution_options().get("isolation_level") or dialect._on_connect_isolation_level
    # Not there before the first connection.
    found = getattr(dialect, "default_isolation_level", None)
    return found if asked is None or asked == found else None


def make_engine(url: str | URL, pooled: bool = False, **options: Any) -> AsyncEngine:
    """An engine for a URL, with `options` of `create_async_engine`; `pooled` as in `Database`."""
    parsed = dialects.parse_async_url(url)
    options = dialects.named(parsed.get_backend_name()).engine_options(parsed, pooled) | options
    return create_async_engine(parsed, json_deserializer=encoding.loads, **options)
