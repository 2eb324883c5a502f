"""Listeners of SQLAlchemy's events for the time of a test."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event


@contextmanager
def listening(target: Any, name: str, function: Callable[..., None]) -> Iterator[None]:
    """Let `function` listen to an event of an object or a class."""
    event.listen(target, name, function)
    try:
        yield
    finally:
        event.remove(target, name, function)
        if target is Engine:
            # SQLAlchemy itself never resets the flag, which would turn shortcuts off in other tests.
            Engine._has_events = False
