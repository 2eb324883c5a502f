"""Every private name of SQLAlchemy, Alembic and aiosqlite that Oban uses.

Each function says what happens if its name disappears from a later release. A node has to start without any
of them. The upper bounds of the dependencies in `pyproject.toml` exist because of this package.
"""

from oban.compat.engines import (
    FollowingEngine,
    connect_isolation_level,
    has_listeners,
    is_observed,
    listens,
    logs_statements,
    root_engine,
)
from oban.compat.greenlets import ProviderGreenlet, in_greenlet, run_sync, spawn, wait_for
from oban.compat.migrations import compare_last, downgrade_steps, upgrade_steps
from oban.compat.pools import (
    cares_for_connections,
    close_idle,
    mark_own,
    open_idle,
    pool_arguments,
    pool_listens,
    renew_queue,
    shared_driver_connection,
    tests_connections,
)
from oban.compat.sessions import (
    attach_function,
    copy_state,
    current_flush,
    executes_directly,
    flushing,
    parse_savepoint,
    savepoint_number,
    sessions_listen,
    set_identity,
)
from oban.compat.sqlite import driver_autocommit, sqlite_autocommit
from oban.compat.statements import (
    bind_processors,
    can_select_converted,
    check_literals,
    compiles_distinct,
    compiles_for_many,
    is_limited,
    locks_rows,
    named_columns,
    raise_dbapi_error,
    row_arguments,
)

__all__ = [
    "FollowingEngine",
    "ProviderGreenlet",
    "attach_function",
    "bind_processors",
    "can_select_converted",
    "cares_for_connections",
    "check_literals",
    "close_idle",
    "compare_last",
    "compiles_distinct",
    "compiles_for_many",
    "connect_isolation_level",
    "copy_state",
    "current_flush",
    "downgrade_steps",
    "driver_autocommit",
    "executes_directly",
    "flushing",
    "has_listeners",
    "in_greenlet",
    "is_limited",
    "is_observed",
    "listens",
    "locks_rows",
    "logs_statements",
    "mark_own",
    "named_columns",
    "open_idle",
    "parse_savepoint",
    "pool_arguments",
    "pool_listens",
    "raise_dbapi_error",
    "renew_queue",
    "root_engine",
    "row_arguments",
    "run_sync",
    "savepoint_number",
    "sessions_listen",
    "set_identity",
    "shared_driver_connection",
    "spawn",
    "sqlite_autocommit",
    "tests_connections",
    "upgrade_steps",
    "wait_for",
]
