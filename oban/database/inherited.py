"""Keeps a forked child off the connections that it inherits, whose other end its parent goes on to use.

The child gets pools and locks of its own. A connection to a server is never closed there, because the driver
would tell the server to end the session of the parent.

SQLite remembers in each process which locks its connections have on a file, but a child does not inherit the
locks. If it believed to have them, it would write to a log that the parent deletes, or wait for ever. So the
child closes the idle connections that it inherited, and the parent forks between two transactions that write.
"""

import os
import threading
from typing import Any, Protocol
from weakref import WeakSet

from sqlalchemy import Engine

from oban import dialects

#: The process that the databases below belong to.
process: int = os.getpid()
#: Seconds that a fork waits for a transaction of another thread.
PATIENCE = 1.0


class Inheritable(Protocol):
    """An object that a forked child has to renew before it can use it."""

    def _renew(self) -> None: ...


_followed: WeakSet[Inheritable] = WeakSet()
_left_alone: list[object] = []
#: The locks that this thread has while it forks.
_forking = threading.local()


def follow(inheritable: Inheritable) -> None:
    """Renew it in each child that is forked while it lives."""
    _followed.add(inheritable)


def leave_alone(*inherited: object) -> None:
    """Keep what belongs to the parent for as long as this process lives."""
    _left_alone.extend(inherited)


def can_close(engine: Engine) -> bool:
    """Whether a child closes the idle connections of an engine that its parent has used."""
    # The connections of aiosqlite work in a thread, which the child does not have.
    return not (dialects.for_bind(engine).is_remote or engine.dialect.is_async)


def check_process() -> None:
    """Renew everything if this process was forked without Python's knowledge, by a server written in C."""
    if process != os.getpid():
        _after_fork()


def _after_fork() -> None:
    global process
    process = os.getpid()
    for each in [*_followed]:
        each._renew()


def _before_fork() -> None:
    _forking.locks = []
    for each in [*_followed]:
        lock: Any = getattr(each, "_fork_lock", None)
        if lock is not None and lock.acquire(timeout=PATIENCE):
            _forking.locks.append(lock)


def _after_fork_in_parent() -> None:
    for lock in _forking.locks:
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork
    )
