"""Finds the client that a helper works with, and so whether the helper is awaited."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from oban import display, instances
from oban.client import Oban
from oban.database.joined import ASYNC_CALLERS, SYNC_CALLERS
from oban.database.loops import running_loop
from oban.errors import ConfigError, InstanceNotFound, InvalidTarget
from oban.sync_client import SyncOban

T = TypeVar("T")


def resolve(oban: object = "Oban", session: object = None) -> Oban | SyncOban:
    """Return the client that a helper works with.

    Args:
        oban: A client, or the name of the newest one.
        session: The session or connection that the helper was called with.

    Returns:
        For a name, the `Oban` if `session` is one of asyncio, the `SyncOban` if it is a sync one, and without
        a session the `Oban` if an event loop runs in this thread, or else the `SyncOban`.

    Raises:
        InstanceNotFound: There is no such client in this process.
        ConfigError: `oban` is neither a client nor a name.
        InvalidTarget: The client and the session are of different kinds.
    """
    if isinstance(oban, (Oban, SyncOban)):
        return _checked(oban, session)
    if not isinstance(oban, str):
        raise ConfigError(f"oban must be an Oban, a SyncOban or a name, not {display.shown(oban)}")
    is_async = running_loop() is not None if session is None else _is_async(session)
    client: Oban | SyncOban | None = (instances.async_clients if is_async else instances.sync_clients).find(
        oban
    )
    if client is None and session is None and is_async:
        # A test with an event loop, of code that uses none.
        client = instances.sync_clients.find(oban)
    if client is None:
        raise _not_found(oban, is_async)
    return client


def named(coroutine: Coroutine[Any, Any, T], helper: str) -> Coroutine[Any, Any, T]:
    """Name a coroutine after the helper that returns it, for the warning that it was never awaited."""
    coroutine.__qualname__ = helper  # type: ignore[attr-defined]
    return coroutine


def _not_found(name: str, is_async: bool) -> InstanceNotFound:
    shown = display.shown(name)
    if not is_async and instances.async_clients.find(name) is not None:
        return InstanceNotFound(
            f"there is no SyncOban named {shown} in this process, only an Oban: await the helper in an"
            " `async def` test, call it through the portal of a TestClient, or request the fixture"
            f" sync_oban, or create SyncOban(…, name={shown})"
        )
    kind = "Oban" if is_async else "SyncOban"
    fixture = "oban" if is_async else "sync_oban"
    return InstanceNotFound(
        f"there is no {kind} named {shown} in this process: request the fixture {fixture}, or create"
        f" {kind}(…, name={shown})"
    )


def _checked(client: Oban | SyncOban, session: object) -> Oban | SyncOban:
    if session is not None and _is_async(session) != isinstance(client, Oban):
        kind, needed = type(session).__name__, "an AsyncSession or AsyncConnection"
        if isinstance(client, SyncOban):
            needed = "a Session or Connection"
        raise InvalidTarget(f"session must be {needed} for {type(client).__name__}, not {kind}")
    return client


def _is_async(session: object) -> bool:
    if isinstance(session, ASYNC_CALLERS):
        return True
    if isinstance(session, SYNC_CALLERS):
        return False
    raise InvalidTarget(f"session must be a session or connection, not {type(session).__name__}")
