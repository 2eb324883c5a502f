"""The signal dispositions of the tests and of the processes that they start."""

import signal


def restore_default_signals() -> None:
    """Handle SIGINT and SIGQUIT as a process in the foreground of a terminal does.

    A shell without job control ignores both signals in commands that it runs in the background, such as
        `make test &` in a script, and every process inherits the ignored signals of its parent. It does not
        inherit a Python handler, so children start with the default.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
