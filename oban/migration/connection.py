"""A connection for migrations, with whichever driver a URL names."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import URL, Connection, NullPool, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from oban import dialects

T = TypeVar("T")


def with_connection(url: URL, action: Callable[[Connection], T]) -> T:
    """Call `action` in one transaction on a new connection. Also works within a running event loop."""
    dialect = dialects.by_name(url.get_backend_name())
    if dialect.sync_driver is not None:
        url = url.set(drivername=f"{dialect.name}+{dialect.sync_driver}")
    # There can be a pooler in between, and a migration gains nothing from prepared statements.
    arguments = dialect.engine_options(url, pooled=True).get("connect_args", {})
    if url.get_driver_name() in dialect.sync_drivers:
        with create_engine(url, poolclass=NullPool, connect_args=arguments).begin() as connection:
            return action(connection)

    async def run() -> T:
        engine = create_async_engine(url, poolclass=NullPool, connect_args=arguments)
        async with engine.begin() as connection:
            return await connection.run_sync(action)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run())
    # A thread can have only one running loop.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, run()).result()
