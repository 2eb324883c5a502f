"""Finds out from its socket whether a connection of any driver was closed."""

import os
import select
import socket
from typing import Any


def is_lost(connection: Any) -> bool | None:
    """Whether the connection was closed; None if that is unknown, because something has arrived."""
    # asyncpg has a method, the other drivers an attribute.
    closed = getattr(connection, "is_closed", None)
    if closed() if closed is not None else getattr(connection, "closed", False):
        return True
    try:
        descriptor = _descriptor(connection)
    except Exception:
        return True
    # The server says nothing on an idle connection, except that it ends it, or that a setting has changed.
    return False if descriptor is None or not _is_readable(descriptor) else None


def cut(connection: Any) -> None:
    """Let whatever waits for an answer on the connection fail now."""
    if (descriptor := _descriptor(connection)) is not None:
        with socket.socket(fileno=os.dup(descriptor)) as shared:
            shared.shutdown(socket.SHUT_RDWR)


def _descriptor(connection: Any) -> int | None:
    """The file descriptor of the socket, if it can be found."""
    if (fileno := getattr(connection, "fileno", None)) is not None:
        return int(fileno())
    # asyncpg and pg8000 have no public name for the socket. Without these, a lost connection is noticed by
    # asyncpg's event loop alone, and by pg8000 when the server is asked.
    transport = getattr(connection, "_transport", None)
    found = getattr(connection, "_usock", None) if transport is None else transport.get_extra_info("socket")
    return None if found is None else int(found.fileno())


def _is_readable(descriptor: int) -> bool:
    if not hasattr(select, "poll"):
        return bool(select.select([descriptor], [], [], 0)[0])
    # Unlike select(), it takes descriptors above 1023.
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
