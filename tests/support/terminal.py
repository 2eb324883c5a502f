"""Commands in a terminal: what the screen shows, and keys to press."""

import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import pyte

from tests.support.processes import ROOT
from tests.support.waiting import Deadline

#: What would change the output of a command.
_UNSET = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "CI", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


class Terminals:
    """Starts commands, each in a process and a terminal of its own."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link

    def open(
        self,
        *arguments: str,
        columns: int = 100,
        rows: int = 40,
        environment: Mapping[str, str] | None = None,
        module: str | None = None,
        folder: str | None = None,
    ) -> "Terminal":
        """Start `oban`, or a module as `python -m` does, with these arguments in a terminal of this size.

        It runs in `folder`, by default the current one.
        """
        changes = {**dict.fromkeys(_UNSET), "TERM": "xterm-256color", **(environment or {})}
        # The process that forks began with another environment.
        for name in ("OBAN_DATABASE_URL", "OBAN_APP", "OBAN_NAME", "OBAN_PREFIX"):
            changes.setdefault(name, os.environ.get(name))
        self._send(
            arguments=arguments,
            columns=columns,
            rows=rows,
            folder=folder or os.getcwd(),
            environment=changes,
            module=module,
        )
        answer, (file,), *_ = socket.recv_fds(self._link, 4, 1)
        return Terminal(self, struct.unpack("i", answer)[0], file, columns, rows)

    def run(self, *arguments: str, **options: Any) -> tuple[int, list[str]]:
        """Run a command to its end. Returns its exit code, and the lines on the screen."""
        with self.open(*arguments, **{"rows": 200, **options}) as terminal:
            code = terminal.finish()
            return code, terminal.lines

    def wait(self, pid: int) -> int:
        self._send(wait=pid)
        code: int = struct.unpack("i", self._link.recv(4))[0]
        return code

    def _send(self, **request: Any) -> None:
        self._link.sendall(json.dumps(request).encode() + b"\n")


class Terminal:
    """A command that runs in a terminal."""

    def __init__(self, terminals: Terminals, pid: int, file: int, columns: int, rows: int) -> None:
        self._terminals = terminals
        self._file = file
        self._pid = pid
        self._code: int | None = None
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        #: All that the command has printed, with the escape sequences.
        self.output = b""

    @property
    def lines(self) -> list[str]:
        """The lines on the screen, without those that are empty at the end."""
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def press(self, keys: str) -> None:
        """Type characters, or an escape sequence such as `"\\x1b[B"` for the key Down."""
        os.write(self._file, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the terminal, as a window manager does."""
        self.screen.resize(rows, columns)
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def kill(self, number: int) -> None:
        """Send the command a signal."""
        os.kill(self._pid, number)

    def wait_for(self, shown: str | Callable[[str], object]) -> str:
        """Wait until the screen contains a text, or fulfils a condition. Returns what it shows."""
        is_shown = shown if callable(shown) else lambda text: shown in text
        deadline = Deadline(10)
        while not is_shown(self.text):
            if not self._read() or deadline.passed():
                raise AssertionError(f"{shown!r} is not on the screen:\n{self.text}")
        return self.text

    def finish(self) -> int:
        """Wait until the command ends; returns its exit code."""
        deadline = Deadline(10)
        while self._read():
            assert not deadline.passed(), f"the command has not ended:\n{self.text}"
        if self._code is None:
            self._code = self._terminals.wait(self._pid)
        return self._code

    def _read(self) -> bool:
        """Show more of the output, if there is any within a moment; returns False at its end."""
        if not select.select([self._file], [], [], 0.05)[0]:
            return True
        try:
            part = os.read(self._file, 65536)
        # Linux reports the end of a terminal's processes like this.
        except OSError:
            part = b""
        self.output += part
        self._stream.feed(part)
        return bool(part)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._code is None:
            os.kill(self._pid, signal.SIGKILL)
            self._code = self._terminals.wait(self._pid)
        os.close(self._file)


@contextmanager
def start_terminals() -> Iterator[Terminals]:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "tests.support.terminal_server", str(theirs.fileno())]
    with ours, subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()]) as server:
        theirs.close()
        try:
            yield Terminals(ours)
        finally:
            ours.close()
            server.terminate()
