"""Which engine or connection a session writes jobs to, and how statements get there.

A session can have `binds`, or a `get_bind` that sends models to several databases and SELECTs to a replica.
Statements on jobs lock, write and notify, so that all of them have to be on the connection that writes jobs.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from sqlalchemy import Connection, Engine, update
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.orm import Session

from oban import compat
from oban.errors import InvalidTarget
from oban.models import Job

Bind = Engine | Connection

_UPDATE = update(Job)
#: The key among `bind_arguments` by which a statement says where it has to go.
_PINNED = "oban_bind"


def write_bind(session: Session) -> Bind:
    """Where a session writes jobs; raises `InvalidTarget` if nowhere."""
    routed = has_router(session)
    for mapper in Job.__mapper__.self_and_descendants:
        try:
            if not routed:
                return session.get_bind(mapper)
            # As in SQLAlchemy's documentation, it may ask for a flush or for an UPDATE, and take no other
            # arguments.
            with compat.flushing(session):
                return session.get_bind(mapper=mapper, clause=_UPDATE)
        except UnboundExecutionError:
            # The application may have bound its subclass of Job only.
            continue
    raise InvalidTarget("the session has no engine for jobs: make it with one, or with binds={Job: engine}")


def has_router(session: Session) -> bool:
    """Whether the application decides with a `get_bind` of its own where statements go."""
    return type(session).get_bind is not Session.get_bind or "get_bind" in vars(session)


def arguments(session: Session, bind: Bind) -> dict[str, Any]:
    """The `bind_arguments` that send a statement to a bind; for a session with a router, within `pinned`."""
    return {_PINNED if has_router(session) else "bind": bind}


def pinned(session: Session) -> AbstractContextManager[None]:
    """Let a session with a router send statements with our `arguments` where these say."""
    return _pinned(session) if has_router(session) else nullcontext()


@contextmanager
def _pinned(session: Session) -> Iterator[None]:
    route = session.get_bind
    replaced = vars(session).get("get_bind")

    def get_bind(*args: Any, **options: Any) -> Bind:
        bind: Bind | None = options.pop(_PINNED, None)
        return route(*args, **options) if bind is None else bind

    session.get_bind = get_bind  # type: ignore[method-assign]
    try:
        yield
    finally:
        if replaced is None:
            del session.get_bind
        else:
            session.get_bind = replaced  # type: ignore[method-assign]
