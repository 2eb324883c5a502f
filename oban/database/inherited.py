"""Keeps a forked child off the connections that it inherits, whose other end its parent goes on to use.

The child gets pools and locks of its own. What it inherited is never closed, because a driver would tell the
server to end the session of the parent.
"""

import os
from typing import Protocol
from weakref import WeakSet

#: The process that the databases below belong to.
process: int = os.getpid()


class Inheritable(Protocol):
    """What a forked child has to renew before it can use it."""

    def _renew(self) -> None: ...


_followed: WeakSet[Inheritable] = WeakSet()
_left_alone: list[object] = []


def follow(inheritable: Inheritable) -> None:
    """Renew it in each child that is forked while it lives."""
    _followed.add(inheritable)


def leave_alone(*inherited: object) -> None:
    """Keep what belongs to the parent for as long as this process lives."""
    _left_alone.extend(inherited)


def check_process() -> None:
    """Renew everything if this process was forked without Python's knowledge, by a server written in C."""
    if process != os.getpid():
        _after_fork()


def _after_fork() -> None:
    global process
    process = os.getpid()
    for each in [*_followed]:
        each._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
