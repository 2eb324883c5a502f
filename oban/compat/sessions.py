"""Private names of SQLAlchemy's sessions, savepoints and instances."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

from sqlalchemy import NestedTransaction
from sqlalchemy.orm import Session
from sqlalchemy.orm.state import InstanceState

_session = Session()


def sessions_listen(event: str) -> bool:
    """Return whether an event of the class `Session` has a listener; True without the name."""
    return bool(getattr(getattr(_session, "dispatch", None), event, True))


def executes_directly(session: Session) -> bool:
    """Return whether a session executes a Core statement as its connection does; False without the names.

    Listeners, options of the session, and an `execute` of the application's own can change the statement.
    """
    try:
        private: Any = session
        changed = private.dispatch.do_orm_execute or getattr(private, "execution_options", None)
    except AttributeError:
        return False
    return not changed and type(session).execute is Session.execute and "execute" not in vars(session)


@contextmanager
def flushing(session: Session) -> Iterator[None]:
    """Mark a session as flushing, so that a `get_bind` as in SQLAlchemy's documentation chooses the writer.

    If SQLAlchemy drops the name, such a `get_bind` sends the statements to a reader.
    """
    private: Any = session
    before = getattr(session, "_flushing", False)
    private._flushing = True
    try:
        yield
    finally:
        private._flushing = before


def current_flush(session: Session) -> dict[str, Any] | None:
    """Return a dict for notes about the flush that a session executes, which ends with it.

    None without the name: a flush then sends a NULL for each time that a new job does not have, and reads
    and judges all of its new jobs again for each of them.
    """
    return getattr(getattr(session, "_transaction", None), "__dict__", None)


def savepoint_number(transaction: NestedTransaction) -> int | None:
    """Return the number in a savepoint's name, which is higher than those of earlier savepoints.

    Without the name, None: only the rollback of the whole transaction then restores instances.
    """
    return parse_savepoint(getattr(transaction, "_savepoint", None))


def parse_savepoint(name: str | None) -> int | None:
    """Return the number at the end of a savepoint's name, which is what events report; None without one."""
    digits = (name or "").rpartition("_")[2]
    return int(digits) if digits.isdigit() else None


def attach_function(session: Session) -> Callable[[InstanceState[Any]], None] | None:
    """Return the function that `Session.add` calls with the state of an instance, before the cascades.

    None without the name, or if the application's session has an `add` or `add_all` of its own.
    """
    is_replaced = type(session).add is not Session.add or type(session).add_all is not Session.add_all
    return None if is_replaced else getattr(session, "_save_or_update_impl", None)


def set_identity(state: InstanceState[Any], key: Any) -> None:
    """Make an instance a stored one, as `make_transient_to_detached` does, without expiring anything."""
    state.key = key


def copy_state(state: InstanceState[Any], instance: object) -> None:
    """Give an instance a copy of the state of another one, outside of any session, as pickle does."""
    copied: InstanceState[Any] = InstanceState.__new__(type(state))
    values = state.__getstate__()
    for key in ("committed_state", "expired_attributes", "callables", "info"):
        if key in values:
            values[key] = copy(values[key])
    copied.__setstate__({**values, "instance": instance})
