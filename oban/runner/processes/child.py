"""The main program of a child process, in which workers with `executor="process"` run.

The main thread runs one job after the other while another thread listens to the node. When the node ends or
dies, the child process ends, with every process that it started.
"""

import asyncio
import contextlib
import contextvars
import gc
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

from oban import clock, error_texts, forks, instances, redaction
from oban.errors import ConfigError, UnknownWorker
from oban.registry import registry
from oban.runner.execution.outcome import AttemptFailed, open_args, process_arguments
from oban.runner.processes import protocol, remote
from oban.runner.processes.child_run import ChildRun, Reporter
from oban.running_job import running
from oban.worker import Worker

#: Seconds between two checks whether the node is still there: another process may keep its end of the
#: connection open.
PARENT_CHECK_INTERVAL = 2.0
#: Seconds that an idle process has to end on its own.
EXIT_GRACE = 2.0

_preparing = False


def refuse_to_start() -> None:
    """Raise `ConfigError` if a node starts while a child process imports the main script."""
    if _preparing:
        raise ConfigError(
            "a child process for jobs imports the main script, which starts Oban again: put what the script"
            " does under `if __name__ == '__main__':`"
        )


class _Unsure(Exception):
    """The job may belong to another node by now, so that its own node has to ask."""


class ChildMain:
    """Receives runs from the node, executes them, and sends back how they ended."""

    def __init__(self, connection: socket.socket, parent_pid: int) -> None:
        self._connection = connection
        self._parent_pid = parent_pid
        self._runs: queue.SimpleQueue[ChildRun | None] = queue.SimpleQueue()
        self._last_run: ChildRun | None = None
        self._busy = False
        self._import_error: str | None = None
        #: Held while a message is sent, which several threads do.
        self._sending = threading.Lock()
        self._reporter = Reporter(self._send)

    # -- the thread that listens -----------------------------------------------------------------

    def listen(self) -> None:
        try:
            while message := self._receive():
                if "job" in message:
                    self._last_run = ChildRun(message, self._reporter)
                    self._runs.put(self._last_run)
                elif self._last_run is not None and self._last_run.request["number"] == message["cancelled"]:
                    self._last_run.cancelled = True
        finally:
            self._runs.put(None)
            if not self._busy:
                time.sleep(EXIT_GRACE)
            _kill_everything()

    def _receive(self) -> dict[str, Any] | None:
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        while not poll.poll(PARENT_CHECK_INTERVAL * 1000):
            if os.getppid() != self._parent_pid:
                return None
        header = self._read(protocol.HEADER_SIZE)
        data = header and self._read(protocol.body_size(header))
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
            ending = self._execute(run)
            with contextlib.suppress(OSError):
                # The node takes nothing for a run after its outcome.
                self._reporter.send()
                self._reporter.begin(None)
                self._send({"number": run.request["number"], **ending})
            self._busy = False

    def prepare(self) -> None:
        """Import the node's main module, as child processes of `multiprocessing` do."""
        global _preparing
        message = self._receive()
        _preparing = True
        try:
            spawn.prepare(message or {})
        # Many scripts end with SystemExit.
        except BaseException as error:
            self._import_error = error_texts.error_text(error)
        finally:
            _preparing = False

    def _execute(self, run: ChildRun) -> dict[str, Any]:
        try:
            # In its own context, so that the next job does not see the context variables of this one.
            return {"outcome": contextvars.copy_context().run(self._process, run)}
        except _Unsure:
            return {"unsure": True}
        except BaseException as error:
            if forks.is_child:
                forks.leave()
            worker = registry.get(run.request["name"])
            return {"outcome": remote.encode_error(error, {} if worker is None else worker.error_rules)}
        finally:
            # The job has forked this process: its parent answers the node.
            if forks.is_child:
                forks.leave()
            # The process may be killed while it waits for the next job.
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()

    def _process(self, run: ChildRun) -> dict[str, Any]:
        worker_class = self._load_worker(run.request)
        job = protocol.decode_job(run.request["job"])
        run.begin(job)
        running.set(job)
        # This process and its node may have been frozen since the job was claimed.
        if (sure_until := run.request["sure_until"]) is not None and clock.boottime() >= sure_until:
            raise _Unsure
        self._send({"number": run.request["number"], "begun": True})
        if (context := run.request["context"]) is not None:
            _continue_trace(context)
        worker = worker_class()
        open_args(worker, job)
        run.secrets = redaction.secrets(job)
        result = worker.process(job, **process_arguments(worker, job))
        if inspect.isawaitable(result):
            result = asyncio.run(_await(result))
        return remote.encode_result(result)

    def _load_worker(self, request: dict[str, Any]) -> type[Worker]:
        module, name = request["module"], request["name"]
        if module != "__main__":
            importlib.import_module(module)
        try:
            return registry[name]
        except UnknownWorker:
            error = UnknownWorker(
                f"a child process cannot find {name!r} in {module}; a worker with executor='process' must be"
                " defined at the top level of a module that can be imported"
            )
            raise AttemptFailed(error, f"{self._import_error}\n\n" if self._import_error else "") from None

    def _send(self, message: dict[str, Any]) -> None:
        with self._sending:
            self._connection.sendall(protocol.pack(message))


def _continue_trace(context: dict[str, str]) -> None:
    """Make the context of the job's trace the current one, for spans of the job."""
    # Without OpenTelemetry in this process, the job makes no spans.
    with contextlib.suppress(Exception):
        from oban.otel import propagation

        propagation.attach(context)


async def _await(result: Awaitable[Any]) -> Any:
    try:
        return await result
    finally:
        # Before a copy of the event loop is closed, which would change what the parent's loop waits for.
        if forks.is_child:
            forks.leave()


def _kill_everything() -> None:
    """End this process at once, with all processes that its jobs have started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main(descriptor: int, parent_pid: int) -> None:
    """Serve the node at the other end of a socket until the node closes it or dies."""
    connection = socket.socket(fileno=descriptor)
    # Programs that jobs start must not inherit it.
    connection.set_inheritable(False)
    instances.in_child_process = True
    child = ChildMain(connection, parent_pid)
    forks.guard()
    child.prepare()
    # Imported modules live as long as the process: spare garbage collections the scan of them.
    gc.freeze()
    gc.enable()
    child.serve()
