"""Clients of the other kind, through which the workers of a test enqueue in the test's transaction.

Without them, a plain worker of an async test, or an async worker of a sync one, would find no client, or one
that the application made for its own database.
"""

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import instances
from oban.client import Oban
from oban.models import Job
from oban.sync_client import SyncOban


class _SyncStandIn:
    """Stands in for a `SyncOban`: plain workers enqueue through the `Oban` of the test."""

    def __init__(self, client: Oban) -> None:
        self._client = client
        self._database = client._database

    def _enqueue_sync(self, job: Job, session: Session | None) -> Job:
        return self._client._enqueue_sync(job, session)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"SyncOban.{name} cannot be used in a worker that an async test runs")


class _AsyncStandIn:
    """Stands in for an `Oban`: its methods are those of the `SyncOban` of the test, and run in its thread."""

    _runs_jobs = False

    def __init__(self, client: SyncOban, thread: Executor) -> None:
        self._client = client
        self._database = client._database
        self._thread = thread

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if not callable(method):
            return method
        return partial(self._call, method)

    async def _call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        call = partial(
            method, *map(_sync, args), **{option: _sync(value) for option, value in options.items()}
        )
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._thread, context.run, call)


def _sync(value: Any) -> Any:
    return value.sync_session if isinstance(value, AsyncSession) else value


@contextmanager
def for_plain_workers(client: Oban) -> Iterator[None]:
    """Let `enqueue_sync` use an `Oban` while the block runs."""
    stand_in = _SyncStandIn(client)
    instances.sync_clients.register(client.options.name, stand_in)
    try:
        yield
    finally:
        instances.sync_clients.forget(stand_in)


@contextmanager
def for_async_workers(client: SyncOban, thread: Executor) -> Iterator[None]:
    """Let `enqueue` use a `SyncOban` in its thread while the block runs."""
    stand_in = _AsyncStandIn(client, thread)
    instances.async_clients.register(client.options.name, stand_in)
    try:
        yield
    finally:
        instances.async_clients.forget(stand_in)
