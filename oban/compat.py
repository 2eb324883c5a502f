"""Every private name of SQLAlchemy and Alembic that Oban uses, each with what happens if it disappears.

None of them may keep a node from starting. The upper bounds of the dependencies in `pyproject.toml` exist
because of this module.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from greenlet import getcurrent, greenlet
from sqlalchemy import Connection, CursorResult, Dialect, Engine, NestedTransaction, Pool, Select, util
from sqlalchemy.orm import Session
from sqlalchemy.orm.state import InstanceState
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler

if TYPE_CHECKING:
    # A node does not need Alembic, whose import takes long.
    from alembic.autogenerate.api import AutogenContext
    from alembic.script import ScriptDirectory

T = TypeVar("T")

# -- SQLAlchemy: engines and pools ------------------------------------------------------------------


def pool_arguments(pool: Pool) -> dict[str, Any] | None:
    """How a pool makes and treats its connections, as arguments for another pool.

    The creator knows how to connect whichever way the application chose: a URL, connect_args, a function, a
    token made anew for each connection. None if it cannot be read: the caller then connects with the URL.
    """
    try:
        private: Any = pool
        return {
            "creator": private._creator,
            "recycle": private._recycle,
            "pre_ping": private._pre_ping,
            "reset_on_return": private._reset_on_return,
            "_dispatch": private.dispatch,
        }
    except AttributeError:
        return None


class FollowingEngine(Engine):
    """An engine that also calls the listeners of another engine, whenever they were added.

    Without these names, the listeners of the application's engine are not called on the runner's own one.
    """

    # The other engine calls the listeners of the class `Engine`.
    _sa_propagate_class_events = False

    def __init__(self, followed: Engine, pool: Pool, dialect: Dialect) -> None:
        self._followed = followed
        super().__init__(
            pool,
            dialect,
            followed.url,
            execution_options=followed.get_execution_options(),
            hide_parameters=followed.hide_parameters,
        )
        # Without the name, nothing is called.
        private: Any = self
        if join := getattr(private.dispatch, "_join", None):
            private.dispatch = join(followed.dispatch)

    if not TYPE_CHECKING:

        @property
        def _has_events(self) -> bool:
            return self.__dict__.get("_has_events", False) or getattr(self._followed, "_has_events", True)

        @_has_events.setter
        def _has_events(self, value: bool) -> None:
            self.__dict__["_has_events"] = value


def root_engine(engine: Engine) -> Engine:
    """The engine that `engine.execution_options()` was called on. Without the name, the engine itself."""
    while (proxied := getattr(engine, "_proxied", None)) is not None:
        engine = proxied
    return engine


def shared_driver_connection(pool: Pool) -> Any:
    """The driver's connection that a pool gives to everybody, or to this thread; None if it is not known.

    Then a transaction that was begun past SQLAlchemy is not detected.
    """
    record: Any = pool.__dict__.get("connection")
    if record is None:
        reference = getattr(getattr(pool, "_conn", None), "current", None)
        record = reference() if callable(reference) else None
    return getattr(record, "driver_connection", None)


def enable_pre_ping(pool: Pool) -> None:
    """Check each connection of a pool before its use. Without the name, a lost one fails its next job."""
    if hasattr(pool, "_pre_ping"):
        pool._pre_ping = True


def renew_queue(pool: Pool) -> list[ConnectionPoolEntry]:
    """Let tasks of another event loop wait for a pool; returns its idle connections.

    Without these names, none are returned. The pool then fails on another loop if tasks had to wait for it.
    """
    try:
        private: Any = pool
        adapted = private._pool
        queue = adapted._queue
        entries = []
        while not queue.empty():
            entries.append(queue.get_nowait())
        # It is made anew on the loop that uses it next.
        adapted.__dict__.pop("_queue", None)
        for entry in entries:
            adapted.put_nowait(entry)
        return entries
    except AttributeError:
        return []


def cares_for_connections(pool: Pool) -> bool:
    """Whether a pool does more than hand connections out: tests them, recycles them, or calls listeners.

    True, the careful answer, if that is not known.
    """
    try:
        private: Any = pool
        return bool(private._pre_ping or private._recycle > -1) or pool_listens(
            pool, "checkout", "checkin", "reset"
        )
    except AttributeError:
        return True


def pool_listens(pool: Pool, *events: str) -> bool:
    """Whether an event of a pool has a listener of the application; True, the careful answer, if unknown."""
    dispatch = getattr(pool, "dispatch", None)
    for event in events:
        listeners = getattr(dispatch, event, True)
        if listeners is True or any(not hasattr(each, _OWN) for each in listeners or ()):
            return True
    return False


_OWN = "is_oban_listener"


def mark_own(listener: Any) -> None:
    """Mark a listener of Oban's own, which does not set connections up, for `pool_listens`."""
    setattr(listener, _OWN, True)


def has_listeners(engine: Engine) -> bool:
    """Whether events of the engine are listened to; True, the careful answer, if that is not known."""
    return bool(getattr(engine, "_has_events", True) or getattr(engine.dialect, "_has_events", True))


def listens(engine: Engine, event: str) -> bool:
    """Whether an event of an engine's connections has a listener; True, the careful answer, if unknown."""
    # A listener of the class `Connection` is taken for one of any event. Older releases do not call them.
    if getattr(Connection, "_has_events", False):
        return True
    return getattr(engine, "_has_events", True) and bool(
        getattr(getattr(engine, "dispatch", None), event, True)
    )


_session = Session()


def sessions_listen(event: str) -> bool:
    """Whether an event of all sessions has a listener; True, the careful answer, if that is not known."""
    return bool(getattr(getattr(_session, "dispatch", None), event, True))


@contextmanager
def flushing(session: Session) -> Iterator[None]:
    """Let `get_bind` of a session take its caller for a flush, as SQLAlchemy's documentation shows it.

    Without the name, a `get_bind` that asks for it alone sends our statements where it sends those that read.
    """
    private: Any = session
    before = getattr(session, "_flushing", False)
    private._flushing = True
    try:
        yield
    finally:
        private._flushing = before


def logs_statements(engine: Engine) -> bool:
    """Whether statements are logged; True, the careful answer, if that is not known."""
    log_info: Callable[[], bool] = getattr(engine, "_should_log_info", lambda: True)
    return log_info()


def connect_isolation_level(engine: Engine) -> str | None:
    """The `isolation_level` that the engine was made with. None if it was not, or if that is not known:

    then an engine made in AUTOCOMMIT is treated as any other.
    """
    level: str | None = getattr(engine.dialect, "_on_connect_isolation_level", None)
    return level


def sqlite_autocommit(connection: Connection) -> Any:
    """The attribute `autocommit` of sqlite3's connection, which Python has since 3.12; None without it.

    aiosqlite has the attribute in its thread alone. Without that one's private names, None: True is then not
    noticed, and each statement of a transaction is committed.
    """
    if not hasattr(sqlite3, "LEGACY_TRANSACTION_CONTROL"):
        return None
    info = connection.info
    if (known := info.get(sqlite_autocommit)) is None:
        driver: Any = connection.connection.driver_connection
        known = driver_autocommit(driver)
        if isinstance(driver, sqlite3.Connection):
            # It can be changed at any time.
            return known
        info[sqlite_autocommit] = known
    return known


def driver_autocommit(driver: Any) -> Any:
    """The same of a connection of the driver, without the name: `sqlite3.LEGACY_TRANSACTION_CONTROL`."""
    try:
        if isinstance(driver, sqlite3.Connection):
            return driver.autocommit  # type: ignore[attr-defined, unused-ignore]
        return wait_for(driver._execute(getattr, driver._conn, "autocommit"))
    except AttributeError:
        return getattr(sqlite3, "LEGACY_TRANSACTION_CONTROL", None)


# -- SQLAlchemy: transactions and greenlets ---------------------------------------------------------


def savepoint_number(transaction: NestedTransaction) -> int | None:
    """The number in a savepoint's name, which grows with each; events report only the name.

    None if it is not known: then only the rollback of the whole transaction undoes what instances show.
    """
    return parse_savepoint(getattr(transaction, "_savepoint", None))


def parse_savepoint(name: str | None) -> int | None:
    """The number in a savepoint's name."""
    digits = (name or "").rpartition("_")[2]
    return int(digits) if digits.isdigit() else None


class ProviderGreenlet(greenlet):
    """A greenlet in which SQLAlchemy's asyncio drivers may wait: they switch to its parent.

    SQLAlchemy recognizes it by the attribute. Without support for that, a sync session of a job in a thread
    fails with SQLAlchemy's `MissingGreenlet`.
    """

    __sqlalchemy_greenlet_provider__ = True


async def spawn(function: Callable[[], T]) -> T:
    """Run a sync function in a greenlet, and await what it waits for with `wait_for` or a driver."""
    worker = ProviderGreenlet(function, getcurrent())
    worker.gr_context = getcurrent().gr_context
    awaited: Any = worker.switch()
    while not worker.dead:
        try:
            value = await awaited
        except BaseException as error:
            awaited = worker.throw(type(error), error, error.__traceback__)
        else:
            awaited = worker.switch(value)
    result: T = awaited
    return result


#: Runs sync code that uses SQLAlchemy on an asyncio driver. Without `greenlet_spawn`, `spawn` does the same.
run_sync: Callable[[Callable[[], T]], Awaitable[T]] = getattr(util, "greenlet_spawn", spawn)


def in_greenlet() -> bool:
    """Whether this is sync code that SQLAlchemy runs for an asyncio driver, so that `wait_for` works."""
    return bool(getattr(getcurrent(), "__sqlalchemy_greenlet_provider__", False))


def wait_for(awaitable: Awaitable[Any]) -> Any:
    """Wait in sync code that SQLAlchemy runs for an asyncio driver: the loop goes on meanwhile."""
    parent = getcurrent().parent
    if parent is None:
        raise RuntimeError("not in a greenlet of an asyncio driver")
    return parent.switch(awaitable)


# -- SQLAlchemy: statements -------------------------------------------------------------------------


def locks_rows(statement: Select[Any]) -> bool:
    """Whether a SELECT has FOR UPDATE. False if that is not known."""
    return getattr(statement, "_for_update_arg", None) is not None


def is_limited(statement: Select[Any]) -> bool:
    """Whether LIMIT, OFFSET, FETCH, HAVING or DISTINCT ON can make a SELECT leave rows out.

    An unknown clause counts as absent: a call then needs `everything=True`, the careful answer.
    """
    bounds = ("_limit_clause", "_offset_clause", "_fetch_clause")
    if any(getattr(statement, name, None) is not None for name in bounds):
        return True
    return bool(getattr(statement, "_having_criteria", ()) or getattr(statement, "_distinct_on", ()))


def named_columns(statement: Any) -> list[Any]:
    """The columns that an INSERT gives values for. Empty if they are not known: the job is then available."""
    values, names = getattr(statement, "_values", None), getattr(statement, "_select_names", None)
    return [*(values or ()), *(names or ())]


# -- SQLAlchemy: the fast path ----------------------------------------------------------------------


def bind_processors(compiled: Any) -> Mapping[str, Callable[[Any], Any]]:
    """What turns values into driver parameters. An AttributeError turns off running it again."""
    processors: Mapping[str, Callable[[Any], Any]] = compiled._bind_processors
    return processors


def row_arguments(result: CursorResult[Any]) -> tuple[Any, Any, Any]:
    """The first arguments of `Row` for a result. An AttributeError turns off running it again."""
    metadata: Any = result._metadata
    return metadata, metadata._effective_processors, metadata._key_to_index


def raise_dbapi_error(
    connection: Connection, error: BaseException, statement: str, parameters: Any, cursor: Any, context: Any
) -> NoReturn:
    """Raise a driver's error as SQLAlchemy does; as it is, if SQLAlchemy's function has gone."""
    handle = getattr(connection, "_handle_dbapi_exception", None)
    if handle is not None:
        handle(error, statement, parameters, cursor, context)
    raise error


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


# -- SQLAlchemy: types ------------------------------------------------------------------------------


def compiles_distinct(compiler: SQLCompiler) -> bool:
    """Whether the SELECT that is being compiled is DISTINCT: `Select._distinct`, on `SQLCompiler.stack`.

    Without them, False: on PostgreSQL, a SELECT DISTINCT of jobs that is ordered by a time fails.
    """
    stack: Any = getattr(compiler, "stack", None)
    return bool(stack) and bool(getattr(stack[-1].get("selectable"), "_distinct", False))


# -- Alembic: migrations ----------------------------------------------------------------------------


def upgrade_steps(script: "ScriptDirectory", end: str, current: Any) -> list[Any]:
    """The steps that `alembic upgrade` runs: `ScriptDirectory._upgrade_revs`.

    Without it, the same steps; an unknown revision raises Alembic's RevisionError, not its CommandError.
    """
    if steps := getattr(script, "_upgrade_revs", None):
        return list(steps(end, current))
    from alembic.runtime.migration import MigrationStep

    revisions = list(script.iterate_revisions(end, current, implicit_base=True))
    return [MigrationStep.upgrade_from_script(script.revision_map, each) for each in reversed(revisions)]


def downgrade_steps(script: "ScriptDirectory", end: str, current: Any) -> list[Any]:
    """The steps that `alembic downgrade` runs: `ScriptDirectory._downgrade_revs`; without it, as above."""
    if steps := getattr(script, "_downgrade_revs", None):
        return list(steps(end, current))
    from alembic.runtime.migration import MigrationStep

    revisions = script.iterate_revisions(current, end, select_for_downgrade=True)
    return [MigrationStep.downgrade_from_script(script.revision_map, each) for each in revisions]


def compare_last(context: "AutogenContext", comparator: Callable[..., None]) -> bool:
    """Let autogenerate call a comparator of schemas after all others: `AutogenContext.comparators`.

    Before Alembic 1.18, and without it, False: comparators run in the order in which they were imported.
    """
    comparators: Any = getattr(context, "comparators", None)
    if comparators is None:
        return False
    from alembic.util import DispatchPriority

    comparators.dispatch_for("schema", priority=DispatchPriority.LAST)(comparator)
    return True
