"""The child process in which workers with `executor="process"` run: the far side of `processes`.

The main thread runs one job after the other; another one listens to the node. When the node is gone,
so is this process, with whatever it has started.
"""

import asyncio
import contextlib
import contextvars
import importlib
import inspect
import os
import queue
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable
from multiprocessing import spawn
from typing import Any

from oban import encoding
from oban.errors import ConfigError, UnknownWorker
from oban.runner.execution import outcome
from oban.runner.execution.given import given
from oban.runner.execution.outcome import AttemptFailed, Ending
from oban.runner.processes import protocol
from oban.worker import Worker, registry, running

#: How often to look whether the node is still there, where another process keeps the connection open,
#: and how long an idle process may take to end, in seconds.
WATCH = 2.0

_preparing = False


def refuse_to_start() -> None:
    """Raise `ConfigError` where a script is imported as the main module of a child process."""
    if _preparing:
        raise ConfigError(
            "a child process for jobs imports the main script, which starts Oban again: put what the script"
            " does behind `if __name__ == '__main__':`"
        )


class _Run:
    """What `job.cancelled()` asks."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.cancelled = False


class _Child:
    def __init__(self, connection: socket.socket, parent: int) -> None:
        self._connection = connection
        self._parent = parent
        self._runs: queue.SimpleQueue[_Run | None] = queue.SimpleQueue()
        self._last: _Run | None = None
        self._busy = False
        self._broken: str | None = None

    # -- the thread that listens -----------------------------------------------------------------

    def listen(self) -> None:
        try:
            while message := self._receive():
                if "job" in message:
                    self._last = _Run(message)
                    self._runs.put(self._last)
                # The number tells it from one that was meant for the run before.
                elif self._last is not None and self._last.request["number"] == message["cancelled"]:
                    self._last.cancelled = True
        finally:
            self._runs.put(None)
            if not self._busy:
                time.sleep(WATCH)
            _vanish()

    def _receive(self) -> dict[str, Any] | None:
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        while not poll.poll(WATCH * 1000):
            if os.getppid() != self._parent:
                return None
        header = self._read(protocol.HEADER.size)
        data = header and self._read(protocol.HEADER.unpack(header)[0])
        return protocol.unpack(data) if data else None

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            if not (part := self._connection.recv(min(size - len(data), 1 << 20))):
                return b""
            data += part
        return bytes(data)

    # -- the main thread -------------------------------------------------------------------------

    def serve(self) -> None:
        threading.Thread(target=self.listen, name="oban-listen", daemon=True).start()
        while (run := self._runs.get()) is not None:
            self._busy = True
            ending = self._ending(run)
            with contextlib.suppress(OSError):
                self._send({"number": run.request["number"], "ending": ending})
            self._busy = False

    def prepare(self) -> None:
        """Do what the node says about its main module, as other child processes of Python do."""
        global _preparing
        message = self._receive()
        _preparing = True
        try:
            spawn.prepare(message or {})
        # SystemExit is how many scripts end.
        except BaseException as error:
            self._broken = encoding.error_text(error)
        finally:
            _preparing = False

    def _ending(self, run: _Run) -> Ending:
        try:
            # In a context of its own, so that what the job sets there is gone with it.
            return contextvars.copy_context().run(self._process, run)
        except BaseException as error:
            return outcome.from_error(error)
        finally:
            # It may be killed later, while it waits.
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()

    def _process(self, run: _Run) -> Ending:
        worker_class = self._class_of(run.request)
        job = protocol.job_of(run.request["job"])
        job.__dict__["_run"] = run
        running.set(job)
        self._send({"number": run.request["number"], "begun": True})
        worker = worker_class()
        result = worker.process(job, **given(worker, job))
        if inspect.isawaitable(result):
            result = asyncio.run(_awaited(result))
        return outcome.from_result(result)

    def _class_of(self, request: dict[str, Any]) -> type[Worker]:
        module, name = request["module"], request["name"]
        if module != "__main__":
            importlib.import_module(module)
        try:
            return registry.get(name)
        except UnknownWorker:
            raise AttemptFailed(
                (f"{self._broken}\n\n" if self._broken else "")
                + f"UnknownWorker: a child process does not find {name!r} in {module}; a worker with"
                " executor='process' has to be defined at the top of a module that can be imported"
            ) from None

    def _send(self, message: dict[str, Any]) -> None:
        self._connection.sendall(protocol.pack(message))


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def _vanish() -> None:
    """End at once, with all processes that jobs have started here."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main(descriptor: int, parent: int) -> None:
    """Serve the node at the other end of a socket until it closes it, or is gone."""
    connection = socket.socket(fileno=descriptor)
    # Not for the programs that jobs start.
    connection.set_inheritable(False)
    child = _Child(connection, parent)
    child.prepare()
    child.serve()
