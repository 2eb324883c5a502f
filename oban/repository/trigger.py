"""What keeps the trigger of `oban_jobs` from announcing inserted jobs."""

from typing import NamedTuple

from oban import ddl
from oban.dialects.base import InsertTrigger

#: What follows from it.
CONSEQUENCE = "so jobs are only found by polling (poll_interval, stage_interval)"


class TriggerProblem(NamedTuple):
    """A problem, and what to do about it, as clauses."""

    text: str
    advice: str


def trigger_problem(trigger: InsertTrigger, table: str) -> TriggerProblem | None:
    """Return why the trigger of a table does not announce inserted jobs; None if it does."""
    name = ddl.TRIGGER
    if trigger.mode is None:
        return TriggerProblem(
            f"{table} has no trigger {name}, {CONSEQUENCE}", "run `oban install`, which creates it again"
        )
    if trigger.mode == "D" or (trigger.mode == "R" and not trigger.replica):
        return TriggerProblem(
            f"the trigger {name} of {table} is disabled, {CONSEQUENCE}",
            f"run ALTER TABLE {table} ENABLE TRIGGER {name}",
        )
    if trigger.mode == "O" and trigger.replica:
        return TriggerProblem(
            f"session_replication_role is replica, which disables the trigger {name} of {table},"
            f" {CONSEQUENCE}",
            f"reset it, or run ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}",
        )
    if trigger.source != ddl.notify_source():
        return TriggerProblem(
            f"the function {name} of {table} is not that of this version of Oban, so some jobs may only be"
            " found by polling",
            "run `oban install`",
        )
    return None
