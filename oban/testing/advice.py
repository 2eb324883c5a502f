"""Advice for tests that fail because they do not use the fixtures, or not everywhere."""

import sys
from typing import Final

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


def add_to(error: BaseException, item: pytest.Item) -> None:
    """Add a note to an error of Oban that a test with the right fixtures would not have raised."""
    # A test run that has not imported Oban does not import it for this.
    errors = sys.modules.get("oban.errors")
    if errors is None or not isinstance(error, (errors.SchemaMissing, errors.InstanceNotFound)):
        return
    if "fixture" in str(error) or getattr(error, "__notes__", None):
        return
    used = set(getattr(item, "fixturenames", ()))
    if not used & (_FIXTURES | _SYNC_FIXTURES):
        error.add_note(_NO_FIXTURE)
    elif isinstance(error, errors.SchemaMissing):
        error.add_note(_OTHER_DATABASE)
    elif not used & _SYNC_FIXTURES:
        error.add_note(_OTHER_KIND.format(used="oban", kind="with", needed="sync_oban"))
    elif not used & _FIXTURES:
        error.add_note(_OTHER_KIND.format(used="sync_oban", kind="without", needed="oban"))
