"""Handlers of events, which are attached to one client or to all of a process."""

import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

from oban import callables, display
from oban.errors import ConfigError
from oban.models import Job
from oban.telemetry.events import Event, JobEnded, JobsEnqueued, JobStarted, all_events

logger = logging.getLogger("oban.telemetry")

#: A plain function that is called with an event, in the thread and the context in which it happens.
Handler: TypeAlias = Callable[[Any], None]
#: Makes a context manager in which a client inserts jobs. It can change their `meta` before that.
EnqueueWrapper: TypeAlias = Callable[["Telemetry", Sequence[Job], bool], AbstractContextManager[object]]

_Attachments: TypeAlias = "tuple[tuple[Handler, tuple[type[Event], ...]], ...]"

_lock = threading.Lock()
#: What is attached to every client, and the telemetry of every client.
_global: _Attachments = ()
_global_wrappers: tuple[EnqueueWrapper, ...] = ()
_clients: "weakref.WeakSet[Telemetry]" = weakref.WeakSet()


class Telemetry:
    """The handlers of one client, which is an instance's `telemetry`.

    Handlers are called in the order in which they were attached, on the event loop or in a thread, so they
    must not wait. An error that one raises is logged and has no other effect.
    """

    def __init__(self, instance: str = "Oban", node: str = "") -> None:
        self.instance = instance
        self.node = node
        self._own: _Attachments = ()
        self._handlers: dict[type[Event], tuple[Handler, ...]] = {}
        #: Whether anything is attached to the events about attempts; to `JobsEnqueued`, or around it.
        self.observes_attempts = False
        self.observes_enqueues = False
        self.enqueue_wrappers: tuple[EnqueueWrapper, ...] = ()
        with _lock:
            _clients.add(self)
            self._update()

    def attach(self, handler: Handler, *events: type[Event]) -> Callable[[], None]:
        """Call a plain function with each event of these classes or their subclasses, or with all events.

        Args:
            handler: The function. One that is attached again is called again.
            events: Classes from `oban.telemetry` (default: all).

        Returns:
            A function that detaches the handler.

        Raises:
            ConfigError: `handler` is not a plain function, or one of `events` is not a class of events.
        """
        attachment = _check(handler, events)
        with _lock:
            self._own = (*self._own, attachment)
            self._update()

        def detach() -> None:
            with _lock:
                self._own = _without(self._own, attachment)
                self._update()

        return detach

    def detach(self, handler: Handler) -> None:
        """Detach a handler from every event of this client. Does nothing if it is not attached."""
        with _lock:
            self._own = tuple(attachment for attachment in self._own if attachment[0] != handler)
            self._update()

    def wants(self, event: type[Event]) -> bool:
        """Whether a handler is attached to events of this class."""
        return event in self._handlers

    def emit(self, event: type[Event], **fields: Any) -> None:
        """Create an event and call its handlers. Does nothing if there are none. Never raises."""
        for handler in self._handlers.get(event, ()):
            try:
                handler(event(instance=self.instance, node=self.node, **fields))
            # Whatever a handler raises, even SystemExit, must not fail a job or stop the node.
            except BaseException:
                logger.exception("a handler of %s failed: %s", event.__name__, callables.name(handler))

    def _update(self) -> None:
        """Prepare what `emit` looks up. The lock has to be held."""
        attachments = _global + self._own
        handlers = {
            event: tuple(handler for handler, events in attachments if issubclass(event, events))
            for event in all_events()
        }
        self._handlers = {event: found for event, found in handlers.items() if found}
        self.enqueue_wrappers = _global_wrappers
        self.observes_attempts = self.wants(JobStarted) or self.wants(JobEnded)
        self.observes_enqueues = self.wants(JobsEnqueued) or bool(self.enqueue_wrappers)


def attach(handler: Handler, *events: type[Event]) -> Callable[[], None]:
    """Attach a handler to every client of this process, also to those that are created later.

    Args, return value and errors are those of `Telemetry.attach`.
    """
    global _global
    attachment = _check(handler, events)
    with _lock:
        _global = (*_global, attachment)
        _update_all()

    def detach() -> None:
        global _global
        with _lock:
            _global = _without(_global, attachment)
            _update_all()

    return detach


def wrap_enqueues(wrapper: EnqueueWrapper) -> Callable[[], None]:
    """Insert the jobs of every client within a context manager; returns a function that ends that."""
    global _global_wrappers
    with _lock:
        _global_wrappers = (*_global_wrappers, wrapper)
        _update_all()

    def unwrap() -> None:
        global _global_wrappers
        with _lock:
            _global_wrappers = tuple(other for other in _global_wrappers if other is not wrapper)
            _update_all()

    return unwrap


def _update_all() -> None:
    for telemetry in list(_clients):
        telemetry._update()


def _check(handler: Handler, events: tuple[type[Event], ...]) -> tuple[Handler, tuple[type[Event], ...]]:
    if not callable(handler) or callables.is_async(handler):
        raise ConfigError(f"a telemetry handler must be a plain function, not {display.shown(handler)}")
    for event in events:
        if not (isinstance(event, type) and issubclass(event, Event)):
            raise ConfigError(f"{display.shown(event)} is not a class of events from oban.telemetry")
    return handler, events or (Event,)


def _without(attachments: _Attachments, removed: object) -> _Attachments:
    return tuple(attachment for attachment in attachments if attachment is not removed)
