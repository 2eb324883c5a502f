"""Makes the sessions of jobs, through the factory of `Oban(session=…)` if there is one."""

from collections.abc import Callable
from inspect import isclass, iscoroutinefunction
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from oban.database.binding import has_router, write_bind
from oban.errors import ConfigError
from oban.runner.execution.outcome import AttemptFailed

NEEDED = "session must be an async_sessionmaker, or a function that returns a new AsyncSession"


def check(factory: Any) -> None:
    """Raise `ConfigError` unless `factory` is None, or makes a new `AsyncSession` with each call."""
    if factory is None:
        return
    # A sessionmaker can make sessions of any class. Applications older than async_sessionmaker use it.
    made_of = factory.class_ if isinstance(factory, sessionmaker) else factory
    if isinstance(factory, scoped_session) or (isclass(made_of) and issubclass(made_of, Session)):
        raise ConfigError(f"{NEEDED}; jobs in threads get its sync_session_class")
    if isinstance(factory, async_scoped_session):
        raise ConfigError(f"{NEEDED}; pass the session_factory of the async_scoped_session")
    if not callable(factory):
        raise ConfigError(f"{NEEDED}, not {_described(factory)}")
    if iscoroutinefunction(factory):
        raise ConfigError(f"{NEEDED}; {_described(factory)} is a coroutine function")
    try:
        # They connect only when they are used.
        made = [factory(), factory()]
    except Exception as error:
        raise ConfigError(
            f"{NEEDED}; {_described(factory)} raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(made[0], AsyncSession):
        raise ConfigError(f"{NEEDED}; {_described(factory)} returned an object of type {_type(made[0])}")
    if made[0] is made[1]:
        raise ConfigError(f"{NEEDED}; {_described(factory)} returned the same session twice")


def _described(factory: Any) -> str:
    name: str = getattr(factory, "__qualname__", "") or f"an object of type {_type(factory)}"
    return name


def _type(value: object) -> str:
    return type(value).__name__


class SessionFactory:
    """Makes sessions that connect through an engine of the runner.

    Args:
        factory: the application's factory, checked, or None for plain sessions.
        engine: the application's engine. If the factory binds classes to it, their sessions use the runner's.
    """

    def __init__(
        self, factory: Callable[..., AsyncSession] | None = None, engine: AsyncEngine | None = None
    ) -> None:
        self._factory = factory
        self._engine = engine
        self._binds: dict[Any, Any] = {}
        if isinstance(factory, (async_sessionmaker, sessionmaker)):
            self._binds = factory.kw.get("binds") or {}

    def make(
        self, engine: AsyncEngine, connection: Connection | None = None, *, in_thread: bool
    ) -> AsyncSession:
        """Make a session that uses `engine`, except for classes and tables that are bound to another one.

        With a connection of the engine, it works in a savepoint of the transaction there.

        Raises:
            AttemptFailed: in a thread, the session uses an engine of the event loop.
        """
        target: Engine | Connection = engine.sync_engine if connection is None else connection
        if self._factory is None:
            session = AsyncSession(engine, expire_on_commit=False)
        else:
            session = self._of_application(engine, target, in_thread=in_thread)
        if connection is not None:
            session.sync_session.bind = connection
            session.sync_session.join_transaction_mode = "create_savepoint"
        return session

    def _of_application(
        self, engine: AsyncEngine, target: Engine | Connection, *, in_thread: bool
    ) -> AsyncSession:
        assert self._factory is not None  # noqa: S101 - for type checkers
        # One connection for all that is bound to the application's engine: one transaction.
        binds = {key: engine if self._is_own(bind) else bind for key, bind in self._binds.items()}
        session = self._factory(binds=binds) if binds else self._factory()
        sync_session = session.sync_session
        if isinstance(target, Connection):
            # `binds` of an `AsyncSession` takes no sync connection.
            for key in (key for key, bind in binds.items() if bind is engine):
                sync_session.bind_mapper(key, target)
        if has_router(sync_session):
            self._reroute(sync_session, target, in_thread=in_thread)
        if not self._binds_jobs_elsewhere(sync_session, engine.sync_engine):
            sync_session.bind = target
        sync_session.autobegin = True
        if in_thread:
            used = {write_bind(sync_session), *(bind.sync_engine for bind in binds.values())}
            if used != {engine.sync_engine}:
                raise AttemptFailed(_of_the_loop())
        return session

    def _is_own(self, bind: Any) -> bool:
        """Whether a bind is the application's engine that the runner's stands for."""
        bind = getattr(bind, "sync_engine", bind)
        return self._engine is not None and bind is self._engine.sync_engine

    def _binds_jobs_elsewhere(self, session: Session, engine: Engine) -> bool:
        """Whether a session with another default engine is bound to write jobs to the runner's."""
        if session.bind is None or self._is_own(session.bind):
            return False
        return write_bind(session) is engine

    def _reroute(self, session: Session, target: Engine | Connection, *, in_thread: bool) -> None:
        """Let a `get_bind` of the application return the runner's engine instead of the application's."""
        route = session.get_bind

        def get_bind(*args: Any, **options: Any) -> Engine | Connection:
            bind = route(*args, **options)
            if self._is_own(bind) or bind is target:
                return target
            if in_thread:
                raise _of_the_loop()
            return bind

        session.get_bind = get_bind  # type: ignore[method-assign]


def _of_the_loop() -> ConfigError:
    return ConfigError(
        "the session uses an engine that belongs to the event loop; make process async, or use Oban's engine"
    )
