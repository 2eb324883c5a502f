"""Engines whose users share one connection, such as those with `StaticPool`.

The driver has one transaction at a time. If the application is in one, a call of Oban's without `session=` is
in it as well, so it runs in a savepoint of it: the application commits both or rolls both back. Otherwise the
call has a transaction of its own. Calls take turns.
"""

import threading
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from sqlalchemy import AssertionPool, Connection, Engine, SingletonThreadPool, StaticPool, event

from oban import compat
from oban.database import inherited
from oban.dialects.base import Dialect
from oban.errors import InvalidTarget


class SharedConnection:
    """The one connection of an engine, or one for each thread with `SingletonThreadPool`."""

    _of: ClassVar[WeakKeyDictionary[Engine, "SharedConnection"]] = WeakKeyDictionary()
    _making: ClassVar[threading.Lock] = threading.Lock()
    not_for_nodes = (
        "the engine's pool gives one connection to everybody at once, so that the transactions of jobs would"
        " mix: leave out queues=, or use a file instead of a database in memory,"
        " poolclass=AsyncAdaptedQueuePool with pool_size=1 and max_overflow=0, or pass the URL instead of the"
        " engine"
    )

    def __init__(self, engine: Engine) -> None:
        #: A call locks it. It is reentrant because event handlers of the application can make calls, too.
        self.lock = threading.RLock()
        self._per_thread = isinstance(engine.pool, SingletonThreadPool)
        #: The connections that have begun a transaction, the last one at the end, each with its thread.
        self._begun: WeakKeyDictionary[Connection, int] = WeakKeyDictionary()
        self._guard = threading.Lock()
        self._process = inherited.process
        for name in ("begin", "begin_twophase"):
            event.listen(engine, name, self._on_begin)

    def renew(self) -> None:
        """Make locks for a forked child, as threads of its parent may have those that it inherits."""
        if self._process != inherited.process:
            self._process = inherited.process
            self.lock, self._guard = threading.RLock(), threading.Lock()
            type(self)._making = threading.Lock()

    @classmethod
    def of(cls, engine: Engine) -> "SharedConnection | None":
        """Return the connection that the engine's users share; None if each transaction has its own."""
        if not isinstance(engine.pool, (StaticPool, SingletonThreadPool, AssertionPool)):
            return None
        root = compat.root_engine(engine)
        with cls._making:
            if root not in cls._of:
                cls._of[root] = cls(root)
            return cls._of[root]

    def _on_begin(self, connection: Connection, *_: Any) -> None:
        with self._guard:
            self._begun.pop(connection, None)
            self._begun[connection] = threading.get_ident()

    def transaction(self, dialect: Dialect) -> Connection | None:
        """The connection of the application whose transaction the driver is in.

        SQLAlchemy begins a transaction before the first statement. On SQLite, the driver begins one with the
        first statement that writes; before that, there is nothing to join.
        """
        return next((each for each in self._open() if dialect.in_transaction(each)), None)

    def _open(self) -> list[Connection]:
        """The connections that are in a transaction as far as SQLAlchemy knows, the last one first."""
        here = threading.get_ident()
        with self._guard:
            begun = [each for each, thread in self._begun.items() if thread == here or not self._per_thread]
        return [each for each in reversed(begun) if each.in_transaction() and not each.invalidated]

    def check(self, engine: Engine, dialect: Dialect) -> None:
        """Raise `InvalidTarget` if there can be no transaction of Oban's next to what the application does.

        To begin one would commit a transaction of the driver that SQLAlchemy does not know. `AssertionPool`
        refuses a second use of its connection.
        """
        if isinstance(engine.pool, AssertionPool) and self._open():
            raise InvalidTarget(
                "the engine has one connection, which a session or connection of yours uses: pass it as"
                " session=, or commit it before this call"
            )
        driver = compat.shared_driver_connection(engine.pool)
        if driver is not None and dialect.driver_in_transaction(driver) and not dialect.begins_early(driver):
            raise InvalidTarget(
                "the engine has one connection for everybody, on which a transaction began before this Oban"
                " was made, or without SQLAlchemy: pass its session or connection as session=, or end it"
            )
