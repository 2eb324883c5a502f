"""Runs one test with an `Oban` and with a `SyncOban`, in a transaction that is rolled back."""

import asyncio
import contextvars
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import URL, Connection, Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban import Oban, SyncOban, testing

#: The database, and the kind of client.
KINDS = ("sqlite-async", "sqlite-sync", "postgresql-async", "postgresql-sync")
ASYNC = ("sqlite-async", "postgresql-async")


class Awaited:
    """An object whose methods are awaited, whether they are async or not."""

    def __init__(self, target: Any, **defaults: Any) -> None:
        self._target = target
        self._defaults = defaults

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        method = getattr(self._target, name)

        async def call(*args: Any, **options: Any) -> Any:
            result = method(*args, **{**self._defaults, **options})
            return await result if inspect.isawaitable(result) else result

        return call


@dataclass
class Application:
    """An application in a test: its client, its connection, and the helpers of `oban.testing` for them."""

    client: Oban | SyncOban
    connection: AsyncConnection | Connection
    #: The client with methods that are awaited, and the helpers with this client.
    oban: Any = field(init=False)
    testing: Any = field(init=False)

    def __post_init__(self) -> None:
        self.oban = Awaited(self.client)
        self.testing = Awaited(testing, oban=self.client)

    @property
    def is_async(self) -> bool:
        return isinstance(self.client, Oban)

    @asynccontextmanager
    async def session(self) -> AsyncIterator["OpenSession"]:
        """A session of the application, whose commits end savepoints."""
        options: Any = {"join_transaction_mode": "create_savepoint", "expire_on_commit": False}
        if isinstance(self.connection, AsyncConnection):
            async with AsyncSession(self.connection, **options) as opened:
                yield OpenSession(opened, Awaited(opened))
        else:
            with Session(self.connection, **options) as session:
                yield OpenSession(session, Awaited(session))


@dataclass
class OpenSession:
    """A session, and the same with methods that are awaited."""

    own: Any
    awaited: Any


class Backend:
    """A database with an engine for many tests, one after the other."""

    def __init__(self, kind: str, url: URL) -> None:
        self.is_async = kind.endswith("-async")
        self.is_sqlite = kind.startswith("sqlite")
        self.engine: AsyncEngine | Engine
        if self.is_async:
            self.engine = create_async_engine(url)
            # With a factory, it leaves the event loops of other tests alone.
            self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        else:
            driver = "sqlite+pysqlite" if self.is_sqlite else "postgresql+psycopg"
            self.engine = create_engine(url.set(drivername=driver))

    def run(self, test: Callable[[Application], Coroutine[Any, Any, None]], **options: Any) -> None:
        """Run a test with a new client in a transaction, which is rolled back."""
        if isinstance(self.engine, AsyncEngine):
            # In the context of this test, with its fixtures; that of the runner is that of the first one.
            context = contextvars.copy_context()
            self._runner.run(self._run_async(self.engine, test, options), context=context)
            return
        with testing.rolled_back(self.engine) as connection:
            client = SyncOban(connection, **options)
            # Nothing that it awaits ever waits, so it needs no event loop.
            for _ in _steps(test(Application(client, connection))):
                raise AssertionError("a test with a SyncOban waits for an event loop")

    @staticmethod
    async def _run_async(engine: AsyncEngine, test: Callable[..., Any], options: Any) -> None:
        async with testing.rolled_back(engine) as connection:
            await test(Application(Oban(connection, **options), connection))

    def close(self) -> None:
        if isinstance(self.engine, AsyncEngine):
            self._runner.run(self.engine.dispose())
            self._runner.close()
        else:
            self.engine.dispose()


def _steps(test: Coroutine[Any, Any, None]) -> Iterator[Any]:
    try:
        while True:
            yield test.send(None)
    except StopIteration:
        return


def with_clients(
    test: Callable[..., Coroutine[Any, Any, None]] | None = None,
    /,
    kinds: Sequence[str] = KINDS,
    **options: Any,
) -> Callable[..., Any]:
    """Decorate a test that takes `app` and awaits its methods, so that it runs with some kinds of clients.

    `options` are those of the client. On SQLite and PostgreSQL, an `Oban` runs in an event loop, and a
    `SyncOban` without one.
    """
    if test is None:
        return functools.partial(with_clients, kinds=kinds, **options)

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        backend = fixtures.pop("backend")
        backend.run(lambda app: test(app=app, **fixtures), **options)

    signature = inspect.signature(test)
    parameters = [each for each in signature.parameters.values() if each.name != "app"]
    backend = inspect.Parameter("backend", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(parameters=[*parameters, backend])  # type: ignore[attr-defined]
    return run if kinds is KINDS else pytest.mark.parametrize("backend", kinds, indirect=True)(run)
