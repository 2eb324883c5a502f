"""Advice for tests that fail because they do not use the fixtures, or not everywhere."""

import sys
from typing import Any, Final

import pytest

_FIXTURES: Final = frozenset({"oban", "oban_session", "oban_connection"})
_SYNC_FIXTURES: Final = frozenset({f"sync_{name}" for name in _FIXTURES})

_NO_FIXTURE: Final = (
    "This test does not use the fixtures of Oban, so it works with the client of the application: request the"
    " fixture oban, or sync_oban in a test without asyncio."
)
_OTHER_KIND: Final = (
    "This test uses the fixture {used}, which is for code {kind} asyncio: for other code, request {needed}."
)
_OTHER_DATABASE: Final = (
    "This is not the database of the fixtures that this test uses: let the application open its sessions with"
    " oban_sessionmaker (or sync_oban_sessionmaker), and replace its own client by the fixture."
)
_ABORTED: Final = (
    "All of this test is one transaction, in which PostgreSQL runs nothing after a statement has failed: roll"
    " back the session, or the savepoint, that has run it."
)
_OTHER_LOOP: Final = (
    "A connection of a test works on one event loop. asyncio.run and TestClient start another one: call"
    " helpers through the portal of the TestClient, or send requests with httpx.AsyncClient and"
    " ASGITransport instead."
)
#: The SQLSTATE of a statement in such a transaction.
_IN_FAILED_TRANSACTION: Final = "25P02"


def add_to(error: BaseException, item: pytest.Item) -> None:
    """Add a note to the error of a test that another use of the fixtures would have avoided."""
    used = set(getattr(item, "fixturenames", ()))
    if note := _note(error, used & _FIXTURES, used & _SYNC_FIXTURES):
        error.add_note(note)


def _note(error: BaseException, used: set[str], sync_used: set[str]) -> str | None:
    # A test run that has not imported Oban does not import it for this.
    errors = sys.modules.get("oban.errors")
    if errors is None or "fixture" in str(error) or getattr(error, "__notes__", None):
        return None
    if isinstance(error, (errors.SchemaMissing, errors.InstanceNotFound)):
        if not used and not sync_used:
            return _NO_FIXTURE
        if isinstance(error, errors.SchemaMissing):
            return _OTHER_DATABASE
        if not sync_used:
            return _OTHER_KIND.format(used="oban", kind="with", needed="sync_oban")
        if not used:
            return _OTHER_KIND.format(used="sync_oban", kind="without", needed="oban")
    if isinstance(error, errors.WrongLoop) and "TestClient" not in str(error):
        return _OTHER_LOOP
    return _ABORTED if (used or sync_used) and _is_in_failed_transaction(error) else None


def _is_in_failed_transaction(error: BaseException) -> bool:
    driver_error = getattr(error, "orig", None)
    # The names of psycopg and asyncpg, and of psycopg2.
    states = (getattr(driver_error, name, None) for name in ("sqlstate", "pgcode"))
    return _IN_FAILED_TRANSACTION in states


def check_bind(fixture: str, bind: Any) -> None:
    """Raise `pytest.UsageError` unless a fixture that a project overrides returns a session or connection."""
    from oban.database.joined import ASYNC_CALLERS, SYNC_CALLERS

    kinds = ASYNC_CALLERS if fixture == "oban_bind" else SYNC_CALLERS
    if not isinstance(bind, kinds):
        session, _, connection = (kind.__name__ for kind in kinds)
        raise pytest.UsageError(
            f"the fixture {fixture} has to return the {session} or {connection} whose transaction is rolled"
            f" back after the test, not {type(bind).__name__}"
        )
