"""The state in which a job begins: scheduled before it is due, and available from then on."""

from datetime import UTC, datetime

from sqlalchemy.engine.default import DefaultExecutionContext

from oban import clock, compat
from oban.types import JobState


def state_at(scheduled_at: datetime, now: datetime | None = None) -> JobState:
    """The state of a job that waits for nothing but its time: scheduled before it, then available.

    `now` is by this machine's clock unless the caller passes the database's. `oban.repository.insert` has the
    same rule in SQL.
    """
    return JobState.SCHEDULED if scheduled_at > (now or clock.now()) else JobState.AVAILABLE


def default_state(context: DefaultExecutionContext | None) -> JobState:
    """The state of a row whose INSERT has no value for it."""
    # Forms of admin interfaces ask for the default outside of a statement.
    if context is None:
        return JobState.AVAILABLE
    parameters = context.get_current_parameters(False)  # type: ignore[no-untyped-call]
    # `insert(Job).values([…])` numbers the parameters by row.
    row = compat.row_number(context.current_column)
    key = f"scheduled_at_m{row}" if f"scheduled_at_m{row}" in parameters else "scheduled_at"
    at = parameters.get(key)
    if isinstance(at, datetime):
        return state_at(at.replace(tzinfo=at.tzinfo or UTC))
    if key in parameters:
        return JobState.AVAILABLE
    # Only the database knows the value of an expression: the stager makes the job available when it is due.
    columns = compat.named_columns(getattr(context.compiled, "statement", None))
    is_expression = any(getattr(column, "key", column) == "scheduled_at" for column in columns)
    return JobState.SCHEDULED if is_expression else JobState.AVAILABLE
