"""Restores the trigger that announces inserted jobs, which other tools may have dropped or changed."""

from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from oban import ddl, dialects
from oban.migration import adoption


def restore_trigger(context: MigrationContext, schema: str | None) -> None:
    """Create the trigger and its function again if they are missing or changed.

    The tables must be at the newest revision. A trigger that is disabled stays so.
    """
    connection = context.connection
    if connection is None:
        return
    dialect = dialects.for_bind(connection)
    trigger = dialect.insert_trigger(connection, schema or dialect.table_schema(connection))
    if trigger is None or (trigger.mode is not None and trigger.source == ddl.notify_source()):
        return
    dot = f'"{schema}".' if schema else ""
    missing = [] if trigger.mode else [ddl.CREATE_TRIGGER]
    try:
        with connection.begin_nested():
            for statement in (ddl.NOTIFY, *missing):
                connection.execute(text(statement.format(schema=dot)))
        message = "The trigger that announces inserted jobs was restored."
    # Without it jobs are only found later, which is no reason to refuse an installation that is up to date.
    except DBAPIError as error:
        reason = str(dialects.driver_error(error)).strip().splitlines()[0]
        message = f"The trigger that announces inserted jobs is missing or changed, and stays so: {reason}"
    context.opts.setdefault(adoption.MESSAGES, []).append(message)
