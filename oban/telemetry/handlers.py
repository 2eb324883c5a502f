"""Handlers of events, which are attached to one client or to all of a process."""

import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeAlias, TypeVar

from oban import callables, display
from oban.errors import ConfigError
from oban.log_limits import LogLimit
from oban.models import Job
from oban.telemetry.catalog import EVENTS
from oban.telemetry.events import Event, JobEnded, JobsEnqueued, JobStarted

logger = logging.getLogger("oban.telemetry")

T = TypeVar("T")

#: A plain function that is called with an event, in the thread and the context in which it happens.
Handler: TypeAlias = Callable[[Any], None]
#: Makes a context manager in which a client inserts jobs. It can change their `meta` before that.
EnqueueWrapper: TypeAlias = Callable[["Telemetry", Sequence[Job], bool], AbstractContextManager[object]]


class _Attachment:
    """A handler, and the classes of events that it is attached to."""

    __slots__ = ("_limit", "events", "handler")

    def __init__(self, handler: Handler, events: tuple[type[Event], ...]) -> None:
        if not callable(handler) or callables.is_async(handler):
            shown = display.shown(handler)
            problem = f"; {shown} is async" if callable(handler) else f", not {shown}"
            raise ConfigError(f"a telemetry handler must be a plain function{problem}")
        for event in events:
            if not (isinstance(event, type) and issubclass(event, Event)):
                raise ConfigError(f"{display.shown(event)} is not a class of events from oban.telemetry")
        self.handler = handler
        self.events = events or (Event,)
        self._limit = LogLimit()

    def call(self, event: Event) -> None:
        """Call the handler. An error is logged, but not more than once a minute."""
        try:
            self.handler(event)
        # Whatever a handler raises, even SystemExit, must not fail a job or stop the node.
        except BaseException:
            # Nor must a handler of the log.
            with contextlib.suppress(BaseException):
                self._log_error(event)

    def _log_error(self, event: Event) -> None:
        if count := self._limit.count():
            logger.exception(
                "a telemetry handler has failed: %s, for %s (%s since the last report)",
                *(callables.name(self.handler), type(event).__name__, count),
            )


_Attachments: TypeAlias = tuple[_Attachment, ...]

#: Reentrant, because garbage that is collected meanwhile can run code that makes a client.
_lock = threading.RLock()
#: The telemetry of every client.
_clients: "weakref.WeakSet[Telemetry]" = weakref.WeakSet()


def _renew_lock() -> None:
    """Replace the lock in a forked child, because a thread that the child does not have may have had it."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


class _Added(Generic[T]):
    """Handlers or wrappers in the order in which they were added."""

    __slots__ = ("all",)

    def __init__(self) -> None:
        self.all: tuple[T, ...] = ()

    def add(self, item: T, update: Callable[[], None]) -> Callable[[], None]:
        """Add an item, and return a function that removes it. `update` is called after either."""
        with _lock:
            self.all = (*self.all, item)
            update()
        return lambda: self.keep(lambda other: other is not item, update)

    def keep(self, condition: Callable[[T], bool], update: Callable[[], None]) -> None:
        """Remove all items but those that meet a condition."""
        with _lock:
            self.all = tuple(filter(condition, self.all))
            update()


#: The handlers and wrappers that are attached to every client.
_global: _Added[_Attachment] = _Added()
_global_wrappers: _Added[EnqueueWrapper] = _Added()


class Telemetry:
    """The handlers of one client, which is an instance's `telemetry`.

    Handlers are called in the order in which they were attached, on the event loop or in a thread, so they
    must not wait. An error that one raises is logged and has no other effect.

    Attributes:
        instance: The name of the client's instance, which its events have.
        node: The name of the client's node, which its events have.
    """

    def __init__(self, instance: str = "Oban", node: str = "") -> None:
        self.instance: str = instance
        self.node: str = node
        #: Functions that are called when the node gets another name.
        self.on_rename: list[Callable[[], object]] = []
        self._own: _Added[_Attachment] = _Added()
        self._own_wrappers: _Added[EnqueueWrapper] = _Added()
        self._attachments: dict[type[Event], _Attachments] = {}
        #: Whether anything is attached to the events about attempts, or to the insertion of jobs.
        self.observes_attempts: bool = False
        self.observes_enqueues: bool = False
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
        return self._own.add(_Attachment(handler, events), self._update)

    def detach(self, handler: Handler) -> None:
        """Detach a handler that `attach` has attached to this client. Does nothing if it is not attached."""
        self._own.keep(lambda attachment: attachment.handler != handler, self._update)

    def wrap_enqueues(self, wrapper: EnqueueWrapper) -> Callable[[], None]:
        """Insert the jobs of this client within a context manager; returns a function that ends that."""
        return self._own_wrappers.add(wrapper, self._update)

    def rename(self, node: str) -> None:
        """Give the node another name, before it starts."""
        if node != self.node:
            self.node = node
            for call in list(self.on_rename):
                call()

    def wants(self, event: type[Event]) -> bool:
        """Whether a handler is attached to events of this class."""
        return event in self._attachments

    def emit(self, event: type[Event], **fields: Any) -> None:
        """Create an event and call its handlers. Does nothing if there are none. Handlers cannot fail it."""
        if attachments := self._attachments.get(event):
            created = event(instance=self.instance, node=self.node, **fields)
            for attachment in attachments:
                attachment.call(created)

    def _update(self) -> None:
        """Prepare the attributes that `emit` and its callers read. The caller must hold the lock."""
        attachments = {
            event: tuple(each for each in _global.all + self._own.all if issubclass(event, each.events))
            for event in EVENTS
        }
        self._attachments = {event: found for event, found in attachments.items() if found}
        self.enqueue_wrappers = _global_wrappers.all + self._own_wrappers.all
        self.observes_attempts = self.wants(JobStarted) or self.wants(JobEnded)
        self.observes_enqueues = self.wants(JobsEnqueued) or bool(self.enqueue_wrappers)


def attach(handler: Handler, *events: type[Event]) -> Callable[[], None]:
    """Attach a handler to every client of this process, also to those that are created later.

    Args:
        handler: A plain function, which gets the event. One that is attached again is called again.
        events: Classes from `oban.telemetry` (default: all).

    Returns:
        A function that detaches the handler.

    Raises:
        ConfigError: `handler` is not a plain function, or one of `events` is not a class of events.

    Example:
        `attach(print, JobEnded, JobsRescued)`
    """
    return _global.add(_Attachment(handler, events), _update_all)


def detach(handler: Handler) -> None:
    """Detach a handler that this module's `attach` has attached. Does nothing if it is not attached."""
    _global.keep(lambda attachment: attachment.handler != handler, _update_all)


def wrap_enqueues(wrapper: EnqueueWrapper) -> Callable[[], None]:
    """Insert the jobs of every client within a context manager; returns a function that ends that."""
    return _global_wrappers.add(wrapper, _update_all)


def _update_all() -> None:
    for telemetry in list(_clients):
        telemetry._update()
