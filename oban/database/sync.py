"""`SyncDatabase`: how a repository function gets its transaction without asyncio."""

import threading
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sqlalchemy import URL, Engine
from sqlalchemy.exc import DBAPIError

from oban.database.base import BaseDatabase, Function, P, T
from oban.database.engines import make_sync_engine
from oban.database.joined import SyncCaller, joined_here, split_sync
from oban.database.retries import Retries
from oban.errors import ConfigError


class SyncDatabase(BaseDatabase):
    """One instance's access to its database without asyncio, from any number of threads.

    Args:
        engine: the application's `Engine`, or a session or connection whose transaction all calls join, or
            a URL. Oban makes an engine for a URL, and disposes of it.
        prefix: the schema of the tables.
        pooled: as for `Database`.

    Raises:
        ConfigError: the engine or the URL cannot be used.
    """

    def __init__(
        self, engine: Engine | SyncCaller | str | URL, prefix: str | None = None, *, pooled: bool = False
    ) -> None:
        engine, joined = split_sync(engine)
        owned = not isinstance(engine, Engine)
        if isinstance(engine, (str, URL)):
            engine = make_sync_engine(engine, pooled)
        elif not isinstance(engine, Engine):
            raise ConfigError(f"an Engine or a database URL is needed, not {type(engine).__name__}")
        elif engine.dialect.is_async:
            raise ConfigError(f"the driver {engine.driver} works with asyncio only; use Oban for this engine")
        super().__init__(engine, owned=owned, prefix=prefix, pooled=pooled, joined=joined)
        self.engine = engine
        self._make_locks()

    def _make_locks(self) -> None:
        #: The writers of this process take turns, and all who share one connection.
        self._reader = nullcontext() if self._own_shared is None else self._own_shared.lock
        self._writer = self._reader
        #: A fork waits for this lock, unless the thread that forks has it.
        self._fork_lock = None
        if self.dialect.single_writer and not self._own_shared:
            self._writer = self._fork_lock = threading.RLock()

    def _turn(self, lock: AbstractContextManager[Any]) -> AbstractContextManager[Any]:
        """The lock for a call: in a block of `joining`, that of the caller."""
        joined = joined_here(self)
        return lock if joined is None else joined.lock

    def _renew(self) -> None:
        super()._renew()
        # Another thread of the parent may have had them.
        self._make_locks()

    def dispose(self) -> None:
        """Close the connections of an engine that Oban made."""
        if self._owns_engine:
            self._autocommit_pool.close()
            self.engine.dispose()

    def run(
        self, caller: SyncCaller | None, function: Function[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a repository function in the caller's transaction, or with None in one of our own."""
        if caller is not None:
            return self.join_sync(caller, True, function, *args, **kwargs)
        self._check_deadlock(writes=True)
        retries = Retries(self.dialect)
        while True:
            transaction = self._begin()
            try:
                with self._turn(self._writer):
                    result = self._commit(transaction, function, *args, **kwargs)
            except Exception as error:
                self._translate(error)
                if not isinstance(error, DBAPIError):
                    raise
                time.sleep(retries.pause(error))
            else:
                self._finish(transaction)
                return result

    def read_in(
        self, caller: SyncCaller | None, function: Function[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a repository function that only reads, as `run` does."""
        if caller is not None:
            return self.join_sync(caller, False, function, *args, **kwargs)
        try:
            with self._turn(self._reader):
                return self._query(function, *args, **kwargs)
        except Exception as error:
            self._translate(error)
            raise
