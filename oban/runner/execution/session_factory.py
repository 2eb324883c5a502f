"""Makes the sessions of jobs, through the factory of `Oban(session=…)` if there is one."""

from collections.abc import Callable
from inspect import isclass, iscoroutinefunction
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from oban.errors import ConfigError
from oban.models import Job
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

    def make(self, engine: AsyncEngine, *, in_thread: bool) -> AsyncSession:
        """Make a session that uses `engine`, except for classes and tables that are bound to another one.

        Raises:
            AttemptFailed: in a thread, the session uses an engine of the event loop.
        """
        if self._factory is None:
            return AsyncSession(engine, expire_on_commit=False)
        # One connection for all that is bound to the application's engine: one transaction.
        binds = {key: engine if self._is_own(bind) else bind for key, bind in self._binds.items()}
        session = self._factory(binds=binds) if binds else self._factory()
        sync_session = session.sync_session
        sync_session.bind = engine.sync_engine
        sync_session.autobegin = True
        if in_thread:
            used = {sync_session.get_bind(inspect(Job)), *(bind.sync_engine for bind in binds.values())}
            if used != {engine.sync_engine}:
                raise AttemptFailed(
                    ConfigError(
                        "the session binds classes to an engine that belongs to the event loop; make process"
                        " async"
                    )
                )
        return session

    def _is_own(self, bind: Any) -> bool:
        return self._engine is not None and getattr(bind, "sync_engine", None) is self._engine.sync_engine
