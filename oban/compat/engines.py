"""Private names of SQLAlchemy's engines."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Dialect, Engine, Pool


class FollowingEngine(Engine):
    """An engine that also calls the listeners of another engine, whenever they were added.

    Without the names, the runner's own engine does not call the listeners of the application's engine.
    """

    # The other engine calls the listeners of the class `Engine`.
    _sa_propagate_class_events = False
    #: The name by which SQLAlchemy logs what such an engine does: `sqlalchemy.engine.Engine.oban`.
    log_name = "oban"

    def __init__(self, followed: Engine, pool: Pool, dialect: Dialect) -> None:
        self._followed = followed
        super().__init__(
            pool,
            dialect,
            followed.url,
            execution_options=followed.get_execution_options(),
            # Its parameters are args of jobs.
            hide_parameters=True,
            logging_name=self.log_name,
        )
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
    """Return the engine that `execution_options()` was called on. Without the name, the engine itself."""
    while (proxied := getattr(engine, "_proxied", None)) is not None:
        engine = proxied
    return engine


def has_listeners(engine: Engine) -> bool:
    """Return whether any event of an engine has a listener; True without the name."""
    return bool(getattr(engine, "_has_events", True) or getattr(engine.dialect, "_has_events", True))


def listens(engine: Engine, event: str) -> bool:
    """Return whether an event of an engine's connections has a listener; True without the names."""
    # The class `Connection` does not say which of its events has a listener. Older releases call none.
    if getattr(Connection, "_has_events", False):
        return True
    return getattr(engine, "_has_events", True) and bool(
        getattr(getattr(engine, "dispatch", None), event, True)
    )


#: The events of a statement, on a connection and on its dialect.
_STATEMENT_EVENTS = ("before_execute", "after_execute", "before_cursor_execute", "after_cursor_execute")
_DRIVER_EVENTS = ("do_execute", "handle_error", "do_setinputsizes")


def is_observed(connection: Connection) -> bool:
    """Return whether SQLAlchemy does more with a statement on a connection than let the driver run it.

    It may call listeners, log the statement, begin a transaction, or refuse to use one that has ended.
    Without the names, True.
    """
    try:
        private: Any = connection
        transaction, nested = private._transaction, private._nested_transaction
        if (
            private._dbapi_connection is None
            or private._echo
            or private._trans_context_manager is not None
            or transaction is None
            or not transaction.is_active
            or (nested is not None and not nested.is_active)
        ):
            return True
        if not (private._has_events or private.engine._has_events or private.dialect._has_events):
            return False
        return any(getattr(private.dispatch, event) for event in _STATEMENT_EVENTS) or any(
            getattr(private.dialect.dispatch, event) for event in _DRIVER_EVENTS
        )
    except AttributeError:
        return True


def logs_statements(engine: Engine) -> bool:
    """Return whether statements are logged; True without the name."""
    log_info: Callable[[], bool] = getattr(engine, "_should_log_info", lambda: True)
    return log_info()


def connect_isolation_level(engine: Engine) -> str | None:
    """Return the `isolation_level` that an engine was created with, if any.

    Without the name, None: an engine in AUTOCOMMIT is then treated as any other.
    """
    level: str | None = getattr(engine.dialect, "_on_connect_isolation_level", None)
    return level
