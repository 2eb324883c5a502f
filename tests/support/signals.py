"""The signal dispositions that tests and the processes that they start begin with."""

import signal


def restore_default_signals() -> None:
    """Handle SIGINT and SIGQUIT as a process in the foreground of a terminal does.

    A shell without job control ignores both in the commands that it runs in the background, as
    `make test &` in a script, and every process passes ignored signals on to its children. A handler
    that is written in Python is not passed on: children begin with the default.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
