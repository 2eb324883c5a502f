"""How a repository function gets its transaction without asyncio: one of its own, or the caller's."""

import random
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, scoped_session

from oban import clock
from oban.database.base import PAUSE, BaseDatabase
from oban.database.engines import make_sync_engine
from oban.errors import ConfigError, InvalidTarget

P = ParamSpec("P")
T = TypeVar("T")
SyncCaller = Session | scoped_session[Any] | Connection


class SyncDatabase(BaseDatabase):
    """A database as one instance uses it, without asyncio, in any number of threads.

    `engine` is an `Engine`, which stays the caller's, or a URL, for which an engine is made and disposed
    of. `pooled` as for `Database`. Raises `ConfigError` for what cannot be used.
    """

    def __init__(
        self, engine: Engine | str | URL, prefix: str | None = None, *, pooled: bool = False
    ) -> None:
        owned = not isinstance(engine, Engine)
        if isinstance(engine, (str, URL)):
            engine = make_sync_engine(engine, pooled)
        elif not isinstance(engine, Engine):
            raise ConfigError(f"an Engine or a database URL is needed, not {type(engine).__name__}")
        elif engine.dialect.is_async:
            raise ConfigError(f"the driver {engine.driver} works with asyncio only; use Oban for this engine")
        super().__init__(engine, owned=owned, prefix=prefix, pooled=pooled)
        self.engine = engine
        self._writer = threading.Lock() if self.dialect.single_writer else nullcontext()

    def dispose(self) -> None:
        """Close the connections of an engine that was made here."""
        if self._owns_engine:
            self._keeper.close()
            self.engine.dispose()

    def write(self, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a repository function in a transaction of its own, again if it lost to another one."""
        self._check_lent(writes=True)
        attempt, since = 1, clock.monotonic()
        while True:
            try:
                return self._transact(function, *args, **kwargs)
            except DBAPIError as error:
                if not self._lost(error, attempt, since):
                    raise
            time.sleep(random.uniform(0, PAUSE) * 2**attempt)  # noqa: S311 - jitter
            attempt += 1

    def _transact(
        self, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with self._door(), self._writer:
            session = self._session_for(function)
            result = self._carry_out(session, function, *args, **kwargs)
        self._finish(session)
        return result

    def read(self, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a repository function that only reads."""
        with self._door():
            return self._consult(function, *args, **kwargs)

    def within(
        self,
        caller: SyncCaller,
        function: Callable[Concatenate[Session, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a repository function in the caller's transaction, neither committing nor rolling back."""
        with self._door():
            if isinstance(caller, scoped_session):
                caller = caller()
            if isinstance(caller, Session):
                return self._lend(caller, function, *args, **kwargs)
            if isinstance(caller, Connection):
                return self._join(caller, function, *args, **kwargs)
        raise InvalidTarget(f"session must be a Session or Connection, not {type(caller).__name__}")

    def run(
        self,
        caller: SyncCaller | None,
        function: Callable[Concatenate[Session, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`within` the caller's transaction if there is one, else `write` in one of its own."""
        if caller is None:
            return self.write(function, *args, **kwargs)
        return self.within(caller, function, *args, **kwargs)

    def look(
        self,
        caller: SyncCaller | None,
        function: Callable[Concatenate[Session, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`within` the caller's transaction if there is one, else `read`."""
        if caller is None:
            return self.read(function, *args, **kwargs)
        return self.within(caller, function, *args, **kwargs)
