"""Signals as requests to stop, on an event loop."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable

from oban import stop_signals

logger = logging.getLogger("oban")

#: Seconds between two checks whether the handlers are still there.
CHECK_INTERVAL = 0.25


class SignalRequests:
    """Calls `stop` for signals: once to stop, and once for each SIGTERM or Ctrl-C after the first one.

    SIGHUP only ever stops. One closed terminal can send it twice, from the kernel and from the shell, and a
    service manager can send it right after SIGTERM: neither means that somebody has lost patience.
    """

    def __init__(self, stop: Callable[[], object]) -> None:
        self._stop = stop
        self._stopping = False
        self._is_repeated = False
        #: The function that Python calls for each signal while this object handles it.
        self._handlers: dict[signal.Signals, object] = {}

    def receive(self) -> None:
        """Handle the signals from now on, on the running event loop."""
        for number in stop_signals.handled():
            self._add(number)

    async def wait(self, stopped: asyncio.Event) -> None:
        """Wait for an event, and handle the signals again if a job sets handlers of its own meanwhile."""
        while not stopped.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), CHECK_INTERVAL)
            for number, handler in list(self._handlers.items()):
                if signal.getsignal(number) != handler:
                    logger.warning("a job has replaced the handler of %s; it is set again", number.name)
                    self._add(number)

    def _add(self, number: signal.Signals) -> None:
        callback = self._hang_up if number == stop_signals.HANGUP else self._interrupt
        asyncio.get_running_loop().add_signal_handler(number, callback)
        self._handlers[number] = signal.getsignal(number)

    def _hang_up(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._stop()

    def _interrupt(self) -> None:
        if self._is_repeated or not self._stopping:
            self._stopping = True
            self._stop()
        self._is_repeated = True
