"""A process that has imported the command line, and forks a process with a terminal for each command.

This takes a tenth of the time of starting Python for each of them. It talks to `tests.support.terminal`.
"""

import fcntl
import json
import os
import pty
import runpy
import socket
import struct
import sys
import termios
from typing import Any, NoReturn

# What commands import when they need it.
import aiosqlite  # noqa: F401
import pydantic_settings  # noqa: F401
import sqlalchemy.dialects.postgresql.asyncpg
import sqlalchemy.dialects.sqlite.aiosqlite  # noqa: F401

import oban.cli
from oban.__main__ import main


def serve(link: socket.socket) -> None:
    """Answer requests until the other end is closed, one line of JSON each."""
    for line in link.makefile("rb"):
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            link.sendall(struct.pack("i", os.waitstatus_to_exitcode(status)))
            continue
        pid, terminal = pty.fork()
        if pid == 0:
            link.close()
            run(**request)
        socket.send_fds(link, [struct.pack("i", pid)], [terminal])
        os.close(terminal)


def run(
    arguments: list[str],
    columns: int,
    rows: int,
    folder: str,
    environment: dict[str, str | None],
    module: str | None,
) -> NoReturn:
    """Run `oban`, or a module, in the terminal that is this process's input and output."""
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    os.chdir(folder)
    for name, value in environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    sys.argv = [module or "oban", *arguments]
    # click would call the program `python -m tests.support.terminal_server`.
    sys.modules["__main__"].__package__ = ""
    code: Any = 0
    try:
        if module:
            sys.path.insert(0, folder)
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            main()
    except SystemExit as end:
        code = end.code
        # What Python does with a message.
        if isinstance(code, str):
            print(code, file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    # Imports the modules of all commands.
    assert all(oban.cli.main.commands.values())
    serve(socket.socket(fileno=int(sys.argv[1])))
