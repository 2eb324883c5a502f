"""`upgrade` and `downgrade`: run the revisions from Python, on any target."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from oban import compat, dialects
from oban.config import check_prefix
from oban.errors import ConfigError, ObanError
from oban.migration import adoption, revisions

T = TypeVar("T")


class RevisionOperations(Protocol):
    """What `upgrade` uses of Alembic's `op`, which is a module to type checkers."""

    def get_bind(self) -> Any: ...

    def get_context(self) -> MigrationContext: ...


Target: TypeAlias = str | URL | Engine | Connection | RevisionOperations


def upgrade(target: Target, *, prefix: str | None = None, revision: str = "head") -> list[str]:
    """Create the tables, or update them, up to a revision.

    Tables that exist already, created by `metadata.create_all` or by oban-py 0.6 to 0.7, are adopted with
    their rows.

    Args:
        target: A database URL with a sync or async driver; an engine; a connection, whose transaction you
            commit (`await async_connection.run_sync(migration.upgrade)`); or Alembic's `op`, in a revision
            of your own.
        prefix: The schema of the tables. It is created if it does not exist; otherwise, the right to create
            schemas is not needed.
        revision: The revision to stop at. In Alembic's offline mode, which prints a script, it can be a
            range such as "0001:0007". A range without a start begins where an earlier call in the same
            script ended, or from nothing.

    Returns:
        Sentences about what was changed to adopt tables; an empty list if there were none to adopt.

    Raises:
        ConfigError: The URL or the prefix cannot be used.
        SchemaMismatch: There are tables of another shape, or of a newer version of Oban.
        ObanError: The role cannot create the schema, or tables in it; or the database of a URL refuses
            a change, because another role owns the tables, say.
        DatabaseUnavailable: The database of a URL cannot be reached. With another target, the driver's own
            error is raised, also if the database refuses a change.

    Example:
        `migration.upgrade("postgresql+asyncpg://user@host/name", prefix="jobs")`
    """
    start, _, end = revision.rpartition(":")
    messages: list[str] = []
    _run(target, prefix, _Range(start, end, compat.upgrade_steps, default_start="base"), messages)
    return messages


def downgrade(target: Target, *, prefix: str | None = None, revision: str = "base") -> bool:
    """Take the schema back to a revision: by default, drop the tables with all jobs.

    Args:
        target: As for `upgrade`.
        prefix: The schema of the tables.
        revision: The revision to go back to. Alembic's offline mode needs a range, such as "0007:base".

    Returns:
        Whether there were tables.

    Raises:
        SchemaMismatch: There are tables, but no revision of Oban created them. They are left alone.
        ConfigError: In offline mode, `revision` has no start. All other errors are those of `upgrade`.

    Example:
        `migration.downgrade("sqlite:///app.db")`
    """
    start, _, end = revision.rpartition(":")
    return _run(target, prefix, _Range(start, end, compat.downgrade_steps), [])


@dataclass(frozen=True)
class _Range:
    """The revisions to run. Only a printed script needs a start: a database knows where it is."""

    start: str
    end: str
    steps: Callable[[ScriptDirectory, str, Any], list[Any]]
    default_start: str | None = None

    def options(self, script: ScriptDirectory) -> dict[str, Any]:
        def steps(current: Any, _: Any) -> list[Any]:
            return self.steps(script, self.end, current)

        return {"fn": steps, "destination_rev": self.end, "script": script}


def _run(target: Target, prefix: str | None, range_: _Range, messages: list[str]) -> bool:
    """Run the revisions on a target; False if everything was to be removed and there is nothing."""
    check_prefix(prefix)

    def run_on(connection: Connection) -> bool:
        if not connection.in_transaction():
            # Otherwise Alembic would begin a transaction, and commit it.
            connection.begin()
        options = revisions.options(prefix, connection.dialect.name) | {adoption.MESSAGES: messages}
        # Not through an Alembic environment: that is global, and the application can be in its own.
        context = MigrationContext.configure(connection, opts=options | range_.options(revisions.script()))
        dialects.for_bind(connection).begin_migration(connection, prefix or "")
        if range_.end == "base" and not context.get_current_heads():
            adoption.check_absent(connection, prefix)
            return False
        revisions.run(context, prefix)
        return True

    if isinstance(target, (str, URL)):
        return _run_on_url(dialects.parse_url(target), run_on)
    if isinstance(target, Engine):
        with target.begin() as connection:
            return run_on(connection)
    if isinstance(target, Connection):
        return run_on(target)
    if isinstance(bind := target.get_bind(), Connection):
        return run_on(bind)
    # In offline mode, `op` has no connection.
    _render_offline(target.get_context(), prefix, range_)
    return True


def with_connection(url: URL, action: Callable[[Connection], T], *, autocommit: bool = False) -> T:
    """Call `action` on a new connection, in one transaction unless `autocommit` is set.

    Also works within a running event loop.
    """
    dialect = dialects.by_name(url.get_backend_name())
    if dialect.sync_driver is not None:
        url = url.set(drivername=f"{dialect.name}+{dialect.sync_driver}")
    # There can be a pooler in between, and a migration gains nothing from prepared statements.
    options: dict[str, Any] = {
        "connect_args": dialect.engine_options(url, pooled=True).get("connect_args", {})
    }
    if autocommit:
        options["isolation_level"] = "AUTOCOMMIT"
    url = dialect.driver_url(url)
    if url.get_driver_name() in dialect.sync_drivers:
        with create_engine(url, poolclass=NullPool, **options).begin() as connection:
            return action(connection)

    async def run() -> T:
        engine = create_async_engine(url, poolclass=NullPool, **options)
        async with engine.begin() as connection:
            return await connection.run_sync(action)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run())
    # A thread can have only one running loop.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, run()).result()


def _run_on_url(url: URL, action: Callable[[Connection], bool]) -> bool:
    try:
        return with_connection(url, action)
    except (DBAPIError, OSError) as error:
        if (unavailable := dialects.unavailable(url, error)) or isinstance(error, OSError):
            raise unavailable or error from error
        raise ObanError(
            f"the database refused to change the tables: {dialects.driver_message(error)}"
        ) from error


def _render_offline(outer: MigrationContext, prefix: str | None, range_: _Range) -> None:
    """Add the statements to the script that Alembic is printing."""
    reached: dict[str | None, str] = outer.opts.setdefault("oban_reached", {})
    start = range_.start or reached.get(prefix) or range_.default_start
    script = revisions.script()
    if start is None:
        raise ConfigError(
            "Alembic's offline mode cannot ask the database for its revision: name the revision to start"
            f' from, such as revision="{script.get_current_head()}:{range_.end}"'
        )
    options = revisions.options(prefix, outer.dialect.name) | range_.options(script)
    options |= {"as_sql": True, "literal_binds": True, "output_buffer": outer.output_buffer}
    # The script has its own BEGIN and COMMIT around this.
    options |= {"starting_rev": start, "transactional_ddl": False}
    revisions.run(MigrationContext.configure(dialect=outer.dialect, opts=options), prefix)
    end = script.get_revision(range_.end)
    reached[prefix] = "base" if end is None else end.revision
