"""Collects telemetry events."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from oban import Oban, SyncOban
from oban.telemetry import Event
from tests.support.waiting import eventually

E = TypeVar("E", bound=Event)


class Recorder:
    """A handler that keeps the events, with the thread in which it was called."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.threads: list[str] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.threads.append(threading.current_thread().name)

    def of(self, event: type[E]) -> list[E]:
        """The events of a class."""
        return [one for one in self.events if isinstance(one, event)]

    def names(self, *bases: type[Event]) -> list[str]:
        """The names of the events of some classes, in order."""
        return [type(one).__name__ for one in self.events if isinstance(one, bases or Event)]

    def take(self) -> list[Event]:
        """Remove and return all events."""
        taken, self.events[:] = list(self.events), []
        return taken

    async def first(self, event: type[E]) -> E:
        """Wait for an event of a class, and return the first one."""
        found: list[E] = await eventually(lambda: self.of(event))
        return found[0]


@contextmanager
def recording(oban: Oban | SyncOban, *events: type[Event]) -> Iterator[Recorder]:
    """Record the events of some classes, or all, of a client."""
    recorder = Recorder()
    detach = oban.telemetry.attach(recorder, *events)
    try:
        yield recorder
    finally:
        detach()
