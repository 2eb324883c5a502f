"""Signals as requests to stop, on an event loop."""

import asyncio
from collections.abc import Callable

from oban import stop_signals


class SignalRequests:
    """Calls `stop` for signals: once to stop, and once for each SIGTERM or Ctrl-C after the first one.

    SIGHUP only ever stops. One closed terminal can send it twice, from the kernel and from the shell, and a
    service manager can send it right after SIGTERM: neither means that somebody has lost patience.
    """

    def __init__(self, stop: Callable[[], object]) -> None:
        self._stop = stop
        self._stopping = False
        self._is_repeated = False

    def receive(self) -> None:
        """Handle the signals from now on, on the running event loop."""
        loop = asyncio.get_running_loop()
        for number in stop_signals.handled():
            is_hangup = number == stop_signals.HANGUP
            loop.add_signal_handler(number, self._hang_up if is_hangup else self._interrupt)

    def _hang_up(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._stop()

    def _interrupt(self) -> None:
        if self._is_repeated or not self._stopping:
            self._stopping = True
            self._stop()
        self._is_repeated = True
