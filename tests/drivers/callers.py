"""A session and a client for any driver, with or without asyncio, behind the same async interface."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from oban import Oban, SyncOban
from tests.support.databases import Factory

ASYNC = ("asyncpg", "psycopg (async)", "aiosqlite")
SYNC = ("psycopg", "psycopg2", "pg8000", "sqlite3")
DRIVERS = ASYNC + SYNC


class Base(DeclarativeBase):
    """The base class of the application's models."""


class Order(Base):
    """The application's own table."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]


def factory_for(driver: str, request: pytest.FixtureRequest) -> Factory:
    """What makes databases for a driver."""
    name = "sqlite_factory" if is_sqlite(driver) else "postgresql_factory"
    factory: Factory = request.getfixturevalue(name)
    return factory


def is_sqlite(driver: str) -> bool:
    return "sqlite" in driver


class Awaited:
    """An object whose sync methods are awaited, like those of its async counterpart, and run in a thread.

    On the event loop, a method that waits for a lock would block the node that holds the lock.
    """

    def __init__(self, target: Any) -> None:
        self.target = target

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            return await asyncio.to_thread(getattr(self.target, name), *args, **options)

        return call


@dataclass
class Application:
    """An application with a database, its own engine, and a client on that engine."""

    driver: str
    url: URL
    engine: Engine | AsyncEngine = field(init=False)
    oban: Any = field(init=False)

    def __post_init__(self) -> None:
        url = self.url
        if self.driver == "pg8000":
            # pg8000 takes the path of the socket, and the other drivers its folder.
            host = url.query["host"]
            url = url.set(query={"unix_sock": f"{host}/.s.PGSQL.{url.port or 5432}"})
        if self.driver in ASYNC:
            name = self.driver.removesuffix(" (async)")
            self.engine = create_async_engine(url.set(drivername=f"{url.get_backend_name()}+{name}"))
            self.oban = Oban(self.engine)
        else:
            name = "pysqlite" if is_sqlite(self.driver) else self.driver
            self.engine = create_engine(url.set(drivername=f"{url.get_backend_name()}+{name}"))
            self.oban = Awaited(SyncOban(self.engine))

    async def make_tables(self) -> None:
        """Create the application's tables."""
        if isinstance(self.engine, Engine):
            Base.metadata.create_all(self.engine)
        else:
            async with self.engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)

    @asynccontextmanager
    async def session(self, **options: Any) -> AsyncIterator["Transaction"]:
        """A session of the application, with these options."""
        if isinstance(self.engine, Engine):
            with Session(self.engine, **options) as session:
                yield Transaction(session, session, Awaited(session))
        else:
            async with AsyncSession(self.engine, **options) as opened:
                yield Transaction(opened.sync_session, opened, opened)

    async def dispose(self) -> None:
        if isinstance(self.engine, Engine):
            self.engine.dispose()
        else:
            await self.engine.dispose()


@dataclass
class Transaction:
    """A session in three forms: the sync one, the application's session, and one with async methods."""

    sync: Session
    own: Session | AsyncSession
    awaited: AsyncSession | Awaited

    def add(self, *instances: object) -> None:
        """Add objects, as the application does it."""
        self.own.add_all(instances) if len(instances) > 1 else self.own.add(instances[0])

    async def run(self, function: Callable[[Session], Any]) -> Any:
        """Run a function that needs the sync session."""
        if isinstance(self.own, AsyncSession):
            return await self.own.run_sync(function)
        return await asyncio.to_thread(function, self.own)

    async def commit(self) -> None:
        await self.awaited.commit()

    async def rollback(self) -> None:
        await self.awaited.rollback()

    async def execute(self, *args: Any) -> Any:
        return await self.awaited.execute(*args)
