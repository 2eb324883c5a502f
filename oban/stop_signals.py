"""The signals that stop a node, and what they do before it has an event loop. Importing this is fast."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

#: The signal that arrives when the terminal of a node closes.
HANGUP = signal.SIGHUP
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, HANGUP)


def handled() -> list[signal.Signals]:
    """The signals that stop a node: all of them, unless `nohup` has started this process."""
    return [
        number for number in STOP_SIGNALS if number != HANGUP or signal.getsignal(number) != signal.SIG_IGN
    ]


def exit_on_signals() -> None:
    """Let a signal end the process as long as nothing has been started.

    It raises no exception, because a module that is being imported could swallow that.
    """
    for number in handled():
        signal.signal(number, exit_now)


def outlive_signals() -> None:
    """Let signals do nothing: another process decides when this one ends."""
    for number in handled():
        # Programs that this process starts would inherit SIG_IGN, but do not inherit a handler.
        signal.signal(number, _do_nothing)


def exit_now(*_: object) -> NoReturn:
    """End the process with exit code 0, without waiting for threads.

    Python would wait for jobs in threads, which cannot be stopped. Their rows are back in the queue already.
    """
    exit_with(0)


def exit_with(code: int) -> NoReturn:
    """End the process at once, when its log and its output have been written."""
    try:
        # A signal can arrive while the module is being imported.
        if (shutdown := getattr(sys.modules.get("logging"), "shutdown", None)) is not None:
            shutdown()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    finally:
        os._exit(code)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass
