"""One child process, and one run of a job in it, seen from the node. `child` is the other side."""

import asyncio
import contextlib
import itertools
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import process as multiprocessing_process
from multiprocessing import spawn
from typing import Any

from oban.models import Job
from oban.runner.execution.outcome import AttemptFailed, Result
from oban.runner.execution.run import Run
from oban.runner.processes import protocol, remote
from oban.worker import Worker

#: Seconds that a process has to start and to begin with its job.
START_TIMEOUT = 60.0
#: Seconds that a process has to end after it closed its connection, and that its last message has to arrive
#: after it ended.
DRAIN_TIMEOUT = 0.5

_numbers = itertools.count(1)


#: The value of a run that has not begun, because the job may belong to another node by now.
UNSURE = object()


class ProcessRun:
    """One run of a job in a child process.

    `timeout` is in seconds, from when the job begins. After `sure_until` of the run, by `clock.boottime`, it
    does not begin, and ends with `UNSURE`.
    """

    #: How it ended; set by the process in which it runs.
    ending: asyncio.Future[Result]

    def __init__(self, worker: type[Worker], job: Job, timeout: float | None, run: Run) -> None:
        self.worker = worker
        self.run = run
        self.job = job
        self.timeout = timeout
        self.number = next(_numbers)
        self.begun = False
        #: Where the job runs now.
        self.process: WorkerProcess | None = None
        self.cancelled = False
        self._loop = asyncio.get_running_loop()
        tracing = None if run.view is None else run.view.tracing
        #: The context of the job's trace. It is taken here, where that is the current one.
        self.context = None if tracing is None else tracing.carrier()

    def cancel(self) -> None:
        """Make `job.cancelled()` true in the process. Call it from any thread."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        self.cancelled = True
        if self.process is not None:
            self.process.send({"cancelled": self.number})


class WorkerProcess(asyncio.Protocol):
    """A child process, the connection to it, and a thread that starts it and waits for its end."""

    def __init__(self, on_end: "Callable[[WorkerProcess], None]") -> None:
        self.ended = asyncio.Event()
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._thread: threading.Thread | None = None
        self._received = bytearray()
        self._run: ProcessRun | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: Why the node killed the process: the error of the job, instead of how the process ended.
        self._kill_reason: Exception | None = None
        #: How the process ended, such as "ended with exit code 3", once it has.
        self.how_it_ended: str | None = None
        self._disconnected = False
        #: Guards what follows, which the thread shares with the event loop.
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self._reaped = False

    @property
    def is_usable(self) -> bool:
        return not (self._killed or self._disconnected or self.how_it_ended)

    async def start(self) -> None:
        """Connect, and start the process without waiting for it."""
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            self._transport, _ = await self._loop.create_unix_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        self.send(_main_module())
        self._thread = threading.Thread(
            target=self._start_and_wait, args=(theirs,), name="oban-child", daemon=True
        )
        self._thread.start()

    async def run(self, run: ProcessRun) -> Result:
        self._run = run
        run.ending = self._loop.create_future()
        # The registry's name of the worker, not the one in the row.
        name = run.worker.worker_name
        self._set_timer(START_TIMEOUT, ChildProcessError(f"{name} did not begin within {START_TIMEOUT:g} s"))
        worker = {"module": run.worker.__module__, "name": name}
        sure_until = run.run.sure_until
        limits = {
            "sure_until": sure_until if math.isfinite(sure_until) else None,
            "max_lines": run.run.max_lines,
            "started_at": run.run.started_at,
            "context": run.context,
        }
        self.send({"number": run.number, "job": protocol.encode_job(run.job), **worker, **limits})
        run.process = self
        if run.cancelled:
            run.cancel()
        if self.how_it_ended is not None:
            self._fail()
        try:
            return await run.ending
        finally:
            run.process = self._run = None
            self._set_timer(None)

    def send(self, message: dict[str, Any]) -> None:
        self._transport.write(protocol.pack(message))

    def close(self) -> None:
        """Let an idle process end on its own."""
        self._transport.close()

    def kill(self) -> None:
        """Kill the process now, with every process that it started."""
        with self._lock:
            self._killed = True
            self._kill_group()

    # -- in the thread ---------------------------------------------------------------------------

    def _start_and_wait(self, connection: socket.socket) -> None:
        try:
            with connection:
                process = _popen(connection.fileno())
            with self._lock:
                self._process = process
                if self._killed:
                    self._kill_group()
            if hasattr(os, "waitid"):
                # The process is left unreaped, so that no other process can get its id before the group
                # is killed.
                with contextlib.suppress(ChildProcessError):
                    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            with self._lock:
                self._kill_group()
                how_it_ended = _describe_exit(process.wait())
                self._reaped = True
        except Exception as error:
            how_it_ended = f"could not be started: {type(error).__name__}: {error}"
        # The loop may be closed, by an application that never stopped its node.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._process_ended, how_it_ended)

    def _kill_group(self) -> None:
        if self._process is not None and not self._reaped:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)

    # -- on the event loop -----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            while len(self._received) >= protocol.HEADER_SIZE:
                end = protocol.HEADER_SIZE + protocol.body_size(self._received)
                if len(self._received) < end:
                    return
                message = bytes(self._received[protocol.HEADER_SIZE : end])
                del self._received[:end]
                self._handle(protocol.unpack(message))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self._received.clear()
            self._kill_for(ChildProcessError("the child process sent an invalid message"))

    def _handle(self, message: dict[str, Any]) -> None:
        run = self._run
        if run is None or message["number"] != run.number or self._kill_reason:
            return
        if "begun" in message:
            run.begun = True
            name = run.worker.worker_name
            self._set_timer(run.timeout, TimeoutError(f"{name} timed out after {run.timeout or 0:g} s"))
            return
        if "lines" in message:
            run.run.receive(message["progress"], message["lines"])
            return
        ending = Result(UNSURE) if "unsure" in message else remote.decode(message["outcome"])
        if not run.ending.done():
            run.ending.set_result(ending)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disconnected = True
        if self.how_it_ended is not None:
            self._finish()
        else:
            # The process is about to end, or a job has closed a descriptor that is not its own.
            reason = ChildProcessError("the child process closed its connection")
            self._loop.call_later(DRAIN_TIMEOUT, self._kill_for, reason)

    def _process_ended(self, how: str) -> None:
        self.how_it_ended = how
        if self._disconnected:
            self._finish()
        else:
            # Its last message may not have been read yet. A process that it started may keep the
            # connection open, though.
            self._loop.call_later(DRAIN_TIMEOUT, self._transport.abort)

    def _finish(self) -> None:
        self._fail()
        if self._thread is not None:
            # Its last call was the one to `_process_ended`, so that this does not block.
            self._thread.join()
        self._on_end(self)
        self.ended.set()

    def _fail(self) -> None:
        if (run := self._run) is not None and not run.ending.done():
            how = f"the child process of {run.worker.worker_name} {self.how_it_ended}"
            run.ending.set_exception(AttemptFailed(self._kill_reason or ChildProcessError(how)))

    def _set_timer(self, seconds: float | None, reason: Exception | None = None) -> None:
        """Kill the process after `seconds`, or not at all (None), instead of when the last timer ends."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self._kill_for, reason)

    def _kill_for(self, reason: Exception | None) -> None:
        if self.how_it_ended is None:
            self._kill_reason = self._kill_reason or reason
            self.kill()


def _popen(descriptor: int) -> "subprocess.Popen[bytes]":
    program = (
        # The imports leave no garbage.
        f"import gc, sys; gc.disable(); sys.path[:] = {sys.path!r}; "
        # The node decides when it ends.
        "from oban import stop_signals; stop_signals.outlive_signals(); "
        f"from oban.runner.processes.child import main; main({descriptor}, {os.getpid()})"
    )
    # With the options of this interpreter. In its own process group, so that Ctrl-C does not reach it, and
    # so that everything it starts can be killed with it.
    command = [*spawn.get_command_line()[:-2], program]
    return subprocess.Popen(  # noqa: S603
        command, pass_fds=[descriptor], stdin=subprocess.DEVNULL, process_group=0
    )


def _main_module() -> dict[str, Any]:
    """The data with which `multiprocessing.spawn.prepare` imports the main module of this process."""
    main = sys.modules["__main__"]
    data: dict[str, Any] = {"sys_argv": sys.argv}
    if (name := getattr(getattr(main, "__spec__", None), "name", None)) is not None:
        data["init_main_from_name"] = name
    elif (path := getattr(main, "__file__", None)) is not None:
        directory = getattr(multiprocessing_process, "ORIGINAL_DIR", None) or ""
        data["init_main_from_path"] = os.path.normpath(os.path.join(directory, path))
    return data


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by signal {-code} ({signal.Signals(-code).name})"
    return f"was ended by signal {-code}"
