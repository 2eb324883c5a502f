"""Child processes for the jobs of workers with `executor="process"`, from the side of the node.

Made when they are needed, used again and again, and killed when a job does not end otherwise. Nothing is
pickled: jobs and endings cross as JSON, and what a child imports is said by the registry, not by a row.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing import process as multiprocessing_process
from multiprocessing import spawn
from typing import Any

from oban.models import Job
from oban.runner.execution.outcome import AttemptFailed, Ending
from oban.runner.processes import protocol
from oban.worker import Worker

#: How long a child may take from its start until it begins with a job, in seconds.
START_LIMIT = 60.0
#: How long an idle child may take to end by itself, and what a dead one has said to arrive, in seconds.
DRAIN = 0.5
#: How long the kernel may take to end what was killed, in seconds.
LAST_MOMENTS = 5.0

logger = logging.getLogger("oban.executor")

_numbers = itertools.count(1)
_OUTCOMES = {"completed", "cancelled", "snoozed", "failed"}
_KEYS = ("outcome", "error", "delay", "value")


class Call:
    """One run of a job in a child, with `limit` seconds of time from when it begins."""

    def __init__(self, worker: type[Worker], job: Job, limit: float | None) -> None:
        self.worker = worker
        self.number = next(_numbers)
        self.limit = limit
        self.job = job
        self.begun = False
        self._cancelled = False
        self._child: _Child | None = None
        self._loop = asyncio.get_running_loop()

    def cancel(self) -> None:
        """Let `job.cancelled()` be true in the child. May be called from any thread."""
        self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._cancelled = True
        if self._child is not None:
            self._child.send({"cancelled": self.number})

    def assign(self, child: "_Child | None") -> None:
        """Send the job to a child, or take it away from one."""
        self._child = child
        if child is not None:
            # Not the name in the row: the worker that the registry has for it.
            worker = {"module": self.worker.__module__, "name": self.worker.worker_name}
            child.send({"number": self.number, "job": protocol.row(self.job), **worker})
            if self._cancelled:
                self._tell()


class Processes:
    """The children of one node."""

    def __init__(self) -> None:
        self._idle: list[_Child] = []
        self._children: set[_Child] = set()
        self._closed = False

    async def run(self, call: Call) -> Ending:
        """Run a job in a child. Raises `Failure` where the child cannot say how it ended."""
        while True:
            child = self._idle.pop() if self._idle else None
            is_new = child is None
            if child is None:
                child = await self._new()
            try:
                ending = await child.ask(call)
            except BaseException as error:
                child.kill()
                await child.gone.wait()
                # One that died while it was idle, which was not known yet, has not touched the job.
                if isinstance(error, AttemptFailed) and not (call.begun or is_new or self._closed):
                    continue
                raise
            if self._closed:
                child.kill()
            elif child.is_usable:
                self._idle.append(child)
            return ending

    async def stop(self) -> None:
        """End all children; those at work are killed."""
        self._closed = True
        for child in self._children - set(self._idle):
            child.kill()
        for child in self._idle:
            child.close()
        self._idle.clear()
        try:
            async with asyncio.timeout(LAST_MOMENTS):
                for child in list(self._children):
                    await child.gone.wait()
        except TimeoutError:
            logger.error("%s child processes do not end, though they were killed", len(self._children))

    async def _new(self) -> "_Child":
        if self._closed:
            raise AttemptFailed("ChildProcessError: the node stops")
        child = _Child(self._forget)
        self._children.add(child)
        try:
            await child.open()
        except BaseException:
            self._children.discard(child)
            raise
        return child

    def _forget(self, child: "_Child") -> None:
        self._children.discard(child)
        if child in self._idle:
            self._idle.remove(child)


class _Child(asyncio.Protocol):
    """A process, the connection to it, and a thread that waits for its end."""

    def __init__(self, on_gone: Any) -> None:
        self.gone = asyncio.Event()
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._thread: threading.Thread | None = None
        self._received = bytearray()
        self._call: Call | None = None
        self._answer: asyncio.Future[Ending] | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: Why it was killed; what it is to be blamed for otherwise, once it has ended.
        self._reason: str | None = None
        self._verdict: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._doomed = False
        self._reaped = False
        self._lost = False

    @property
    def is_usable(self) -> bool:
        return not (self._doomed or self._lost or self._verdict)

    async def open(self) -> None:
        """Start the process, without waiting for it."""
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            self._transport, _ = await self._loop.create_unix_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        self.send(_main_module())
        self._thread = threading.Thread(target=self._live, args=(theirs,), name="oban-child", daemon=True)
        self._thread.start()

    async def ask(self, call: Call) -> Ending:
        self._call = call
        self._answer = self._loop.create_future()
        self._limit(START_LIMIT, f"ChildProcessError: {_name(call)} did not begin in {START_LIMIT:g} s")
        call.assign(self)
        if self._verdict is not None:
            self._fail()
        try:
            return await self._answer
        finally:
            call.assign(None)
            self._call = self._answer = None
            self._cancel_timer()

    def send(self, message: dict[str, Any]) -> None:
        self._transport.write(protocol.pack(message))

    def close(self) -> None:
        """Let an idle process end by itself."""
        self._transport.close()

    def kill(self) -> None:
        """End the process now, with everything that it has started."""
        with self._lock:
            self._doomed = True
            self._kill_group()

    # -- the thread ------------------------------------------------------------------------------

    def _live(self, theirs: socket.socket) -> None:
        try:
            with theirs:
                process = _start(theirs.fileno())
            with self._lock:
                self._process = process
                if self._doomed:
                    self._kill_group()
            if hasattr(os, "waitid"):
                # Until it is reaped, its number cannot be that of another process.
                with contextlib.suppress(ChildProcessError):
                    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            with self._lock:
                self._kill_group()
                verdict = _described(process.wait())
                self._reaped = True
        except Exception as error:
            verdict = f"could not be started: {type(error).__name__}: {error}"
        # The loop may have been closed by an application that never stopped its node.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ended, verdict)

    def _kill_group(self) -> None:
        if self._process is not None and not self._reaped:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)

    # -- the event loop --------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= protocol.HEADER.size:
            end = protocol.HEADER.size + protocol.HEADER.unpack_from(self._received)[0]
            if len(self._received) < end:
                return
            message = bytes(self._received[protocol.HEADER.size : end])
            del self._received[:end]
            try:
                self._hear(protocol.unpack(message))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                self._kill_for("ChildProcessError: the child process said something that is no ending")

    def _hear(self, message: dict[str, Any]) -> None:
        call = self._call
        if call is None or self._answer is None or message["number"] != call.number or self._reason:
            return
        if "begun" in message:
            call.begun = True
            self._cancel_timer()
            if call.limit is not None:
                self._limit(call.limit, f"TimeoutError: {_name(call)} timed out after {call.limit:g} s")
            return
        ending = {key: message["ending"][key] for key in _KEYS if key in message["ending"]}
        if ending["outcome"] not in _OUTCOMES:
            raise ValueError(ending["outcome"])
        if not self._answer.done():
            self._answer.set_result(ending)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._verdict is not None:
            self._finish()
        else:
            # It ends, or a job has closed what is not its own.
            self._loop.call_later(DRAIN, self._kill_for, "ChildProcessError: the child process hung up")

    def _ended(self, verdict: str) -> None:
        self._verdict = verdict
        if self._lost:
            self._finish()
        else:
            # What it said last may not have been read yet; its end of the connection may even be open
            # still, in a process that it has started.
            self._loop.call_later(DRAIN, self._transport.abort)

    def _finish(self) -> None:
        self._fail()
        if self._thread is not None:
            # It has said its last word: this waits for nothing.
            self._thread.join()
        self._on_gone(self)
        self.gone.set()

    def _fail(self) -> None:
        if self._answer is not None and self._call is not None and not self._answer.done():
            died = f"ChildProcessError: the child process of {_name(self._call)} {self._verdict}"
            self._answer.set_exception(AttemptFailed(self._reason or died))

    def _limit(self, seconds: float, reason: str) -> None:
        self._timer = self._loop.call_later(seconds, self._kill_for, reason)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _kill_for(self, reason: str) -> None:
        if self._verdict is None:
            self._reason = self._reason or reason
            self.kill()


def _start(descriptor: int) -> "subprocess.Popen[bytes]":
    program = (
        "import signal, sys; "
        # The node decides when to end; unlike SIG_IGN, this is not passed on to programs that jobs start.
        "[signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)]; "
        f"sys.path[:] = {sys.path!r}; "
        f"from oban.runner.processes.child import main; main({descriptor}, {os.getpid()})"
    )
    # With the options that this interpreter runs with. In a group of its own, so that Ctrl-C does not
    # reach it, and so that what it starts can be ended with it.
    command = [*spawn.get_command_line()[:-2], program]
    return subprocess.Popen(  # noqa: S603
        command, pass_fds=[descriptor], stdin=subprocess.DEVNULL, process_group=0
    )


def _main_module() -> dict[str, Any]:
    """What `multiprocessing.spawn.prepare` needs to make the main module of this process known."""
    main = sys.modules["__main__"]
    told: dict[str, Any] = {"sys_argv": sys.argv}
    if (name := getattr(getattr(main, "__spec__", None), "name", None)) is not None:
        told["init_main_from_name"] = name
    elif (path := getattr(main, "__file__", None)) is not None:
        directory = getattr(multiprocessing_process, "ORIGINAL_DIR", None) or ""
        told["init_main_from_path"] = os.path.normpath(os.path.join(directory, path))
    return told


def _name(call: Call) -> str:
    return call.worker.worker_name


def _described(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by signal {-code} ({signal.Signals(-code).name})"
    return f"was ended by signal {-code}"
