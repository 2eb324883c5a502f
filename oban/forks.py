"""Keeps the forked children of a node's process from acting as the node.

A child inherits the handlers of signals, the descriptor that the event loop has for them, and the stack of
the job that has forked it. Without this, a SIGTERM to the child would stop the node, and a child that returns
from the job would go on as a second copy of the node, on the same connections.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import traceback
from typing import Any, NoReturn
from weakref import WeakSet

#: Whether this process was forked from the process of a node, and runs no node itself.
is_child: bool = False

#: The packages whose handlers of signals mean a node or an event loop, and the child has neither.
_HANDLERS_OF = ("oban.", "asyncio.", "uvloop.")
_SIGNALS = signal.valid_signals()

_forking = threading.local()
_loops: WeakSet[Any] = WeakSet()
#: The descriptors with which event loops of nodes wait for events.
_epolls: set[int] = set()
_is_guarded = False


def guard(loop: Any = None) -> None:
    """Guard the children that this process forks from now on. Call it in each process that runs jobs.

    Args:
        loop: The event loop of a node, which must not go on in a child.
    """
    global is_child, _is_guarded
    is_child = False
    if loop is not None:
        _loops.add(loop)
        _epolls.update(_find_epolls())
    if not _is_guarded:
        _is_guarded = True
        os.register_at_fork(
            before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
        )


def leave() -> NoReturn:
    """End this forked child, in which the code of a job, or of middleware, has returned or raised.

    It ends as a program does whose main module returns or raises this.
    """
    code = 1
    try:
        code = _exit_code(sys.exception())
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    finally:
        os._exit(code)


def _exit_code(error: BaseException | None) -> int:
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
        if isinstance(error, KeyboardInterrupt):
            _die_by(signal.SIGINT)
        return 1
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def _die_by(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _before_fork() -> None:
    # A signal can reach the child before `_after_fork_in_child` runs, and has to wait until then.
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    _forking.loop = _running_loop()


def _after_fork_in_parent() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _after_fork_in_child() -> None:
    global is_child
    is_child = True
    interrupts = False
    try:
        # Otherwise Python writes the number of each signal to the event loop of the parent.
        signal.set_wakeup_fd(-1)
        interrupts = _reset_handlers()
        _replace_epolls()
        _end_executors()
        if _forking.loop in _loops:
            _end_at_next_step(_forking.loop)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)
    if interrupts:
        # At the very end: a KeyboardInterrupt in this function would be ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _reset_handlers() -> bool:
    """Give signals their default actions again. Returns whether SIGINT was one of them."""
    interrupts = False
    for number in _SIGNALS:
        handler = signal.getsignal(number)
        if callable(handler) and str(getattr(handler, "__module__", "")).startswith(_HANDLERS_OF):
            signal.signal(number, signal.SIG_DFL)
            interrupts = interrupts or number == signal.SIGINT
    return interrupts


def _find_epolls() -> set[int]:
    """The epoll descriptors of this process. Only Linux has them; a kqueue is not inherited."""
    try:
        return {int(name) for name in os.listdir("/proc/self/fd") if _is_epoll(int(name))}
    except OSError:
        return set()


def _is_epoll(descriptor: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}") == "anon_inode:[eventpoll]"
    except OSError:
        return False


def _replace_epolls() -> None:
    """Give event loops that this child has inherited nothing to wait for.

    Otherwise this child would take events of the parent, or change which ones the parent waits for.
    """
    for descriptor in filter(_is_epoll, _epolls):
        with contextlib.suppress(OSError), select.epoll() as empty:
            os.dup2(empty.fileno(), descriptor, inheritable=False)


def _end_executors() -> None:
    """Let this child end where `concurrent.futures` would go on, or wait, with threads of the parent.

    If a thread of an executor has forked, it would take the next call of the parent, and it would fail at the
    end, because it cannot join itself.
    """
    queues = getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", None)
    if queues is None:
        return
    calls = queues.get(threading.current_thread())
    queues.clear()
    if calls is not None:
        while not calls.empty():
            calls.get_nowait()
        calls.put(_LastCall())


class _LastCall:
    """The next call of an executor's thread, which ends the process."""

    def run(self) -> NoReturn:
        leave()


def _running_loop() -> Any:
    """The event loop that runs in this thread, or None."""
    asyncio = sys.modules.get("asyncio")
    get_running_loop = getattr(asyncio, "_get_running_loop", None)
    return None if get_running_loop is None else get_running_loop()


def _end_at_next_step(loop: Any) -> None:
    """End this child when its code awaits something, because the loop would run the tasks of the node."""
    loop.call_soon(_refuse_to_await)
    # asyncio's own loop lets this run before the callbacks that are ready already.
    if (ready := getattr(loop, "_ready", None)) is not None:
        ready.rotate(1)


def _refuse_to_await() -> NoReturn:
    try:
        os.write(2, b"oban: a forked child of a node was ended because it awaited something\n")
    finally:
        os._exit(1)
