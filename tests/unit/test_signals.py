"""The tests of Ctrl-C also work in a shell that ignores it."""

import subprocess
import sys

SHOW = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
RESTORE = f"""
import subprocess, sys
from tests.support.signals import restore_default_signals
restore_default_signals()
subprocess.run([sys.executable, "-c", {SHOW!r}], check=True)
"""


def test_a_child_of_the_tests_is_interrupted_by_ctrl_c_even_where_the_shell_ignores_it() -> None:
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c"]

    def printed(program: str) -> str:
        return subprocess.run([*command, program], check=True, capture_output=True, text=True).stdout

    assert printed(SHOW) == "False\n"
    assert printed(RESTORE) == "True\n"
