"""What a repository function does with its session, whoever gave it that."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine, Executable, Result, Row, event
from sqlalchemy.orm import Session

from oban import dialects
from oban.database.fast.autocommit_pool import Keeper, Kept
from oban.database.fast.compiled import Prepared

Notice = tuple[str, dict[str, Any]]
_F = TypeVar("_F", bound=Callable[..., Any])

#: Keys of `Session.info`: the schema of the instance; what to do after the commit of a transaction of our
#: own; whether a statement that is to be a transaction by itself has to be one of several after all.
PREFIX = "oban.prefix"
WAITING = "oban.waiting"
ONE_BY_ONE = "oban.one_by_one"
_BEGUN = "oban.begun"

#: Execution options of a connection on which each statement is a transaction by itself.
AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}


class Statements:
    """Stands in for a `Session` of our own where a function only runs statements.

    Setting up and closing a session takes longer than a statement that inserts a job.
    """

    def __init__(self, engine: Engine, info: dict[str, Any], keeper: Keeper) -> None:
        self.dialect = engine.dialect
        self.info = info
        self._engine = engine
        self._keeper = keeper
        self._connection: Connection | None = None
        #: What the connection is if it was kept.
        self.kept: Kept | None = None
        #: Whether it may be from now on.
        self._by_itself = False

    def connection(self, execution_options: dict[str, Any] | None = None) -> Connection:
        """The connection; the options are for its first use, as those of a session's."""
        if self._connection is None:
            self._by_itself = execution_options == AUTOCOMMIT
            if self._by_itself and (kept := self._keeper.take()) is not None:
                self.kept, self._connection = kept, kept.connection
            else:
                self._connection = self._engine.connect()
                if execution_options:
                    self._connection.execution_options(**execution_options)
        return self._connection

    def execute(
        self, statement: Executable, parameters: Any = None, *, execution_options: Any = None
    ) -> "Result[*tuple[Any, ...]]":
        return self.connection().execute(statement, parameters, execution_options=execution_options)

    def commit(self) -> None:
        if self._connection is not None:
            self._connection.commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        failed = kind is not None
        if self.kept is not None:
            self._keeper.put(self.kept, failed=failed)
        elif (connection := self._connection) is not None:
            if self._by_itself and not failed and self._keeper.keep(connection):
                return
            if self._by_itself and failed and self._keeper.keeps:
                # Like a kept one: with psycopg, it would fail for ever if its statements went stale.
                connection.invalidate()
            connection.close()


_PLAIN = set[Callable[..., Any]]()


def plain(function: _F) -> _F:
    """Say of a repository function that it only runs statements: `Statements` are enough for it."""
    _PLAIN.add(function)
    return function


def is_plain(function: Callable[..., Any]) -> bool:
    """Whether that was said of a function."""
    return function in _PLAIN


_lent: ContextVar[Session | None] = ContextVar("oban.lent", default=None)


def execute(
    session: Session, statement: Executable, parameters: Any = None, **options: Any
) -> "Result[*tuple[Any, ...]]":
    """Run a statement on Oban's tables, in the schema of the instance that uses the session."""
    if prefix := session.info.get(PREFIX):
        options["schema_translate_map"] = {None: prefix}
    return session.execute(statement, parameters, execution_options=options)


def rows_of(session: Session, statement: Executable, parameters: dict[str, Any]) -> Sequence[Row[Any]]:
    """All rows of a statement, run as by `execute`; on a kept connection, as it was run the last time.

    For statements that are made once, and have the same parameters each time.
    """
    kept = session.kept if isinstance(session, Statements) else None
    if kept is None or kept.is_watched:
        return execute(session, statement, parameters).all()
    prepared = kept.prepared.get(statement)
    if prepared is not None:
        return prepared.rows(kept.connection, kept.driven, parameters)
    result = execute(session, statement, parameters)
    if statement not in kept.prepared:
        kept.prepared[statement] = Prepared.after(result, parameters)
    return result.all()


def notify(session: Session, channel: str, payloads: Sequence[dict[str, Any]]) -> None:
    """Announce payloads on a channel when, and only if, the session's transaction commits."""
    dialects.for_bind(session).notify(session, session.info.get(PREFIX), channel, payloads)


def alone(session: Session) -> None:
    """Let the one statement that follows be a transaction by itself: one round trip instead of three.

    Not where it would then run at another isolation level, or as several messages of which each may
    go to another server behind a pooler. Then it is one of a transaction as ever.
    """
    if session.info.get(ONE_BY_ONE, True):
        session.connection(execution_options=AUTOCOMMIT)


def when_stored(session: Session, action: Callable[[], None]) -> None:
    """Run `action` once what the session did is stored: after the commit of a transaction of our own.

    In the caller's transaction it runs now: whatever looks from inside of it sees the changes.
    """
    waiting: list[Callable[[], None]] | None = session.info.get(WAITING)
    if waiting is None:
        action()
    else:
        waiting.append(action)


@contextmanager
def lending(session: Session) -> Iterator[None]:
    """Say that the code of this context, a job's, has been given a session."""
    if dialects.for_bind(session).single_writer:
        event.listen(session, "after_begin", _begun)
    token = _lent.set(session)
    try:
        yield
    finally:
        _lent.reset(token)


def _begun(session: Session, _: object, connection: Connection) -> None:
    session.info[_BEGUN] = connection


def lent() -> Connection | None:
    """The connection that the session of this context's job keeps now, where one can keep out all others."""
    session = _lent.get()
    connection: Connection | None = None if session is None else session.info.get(_BEGUN)
    if connection is None or connection.closed or connection.invalidated:
        return None
    return connection
