"""Private names of Alembic."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # A node does not need Alembic, whose import takes long.
    from alembic.autogenerate.api import AutogenContext
    from alembic.script import ScriptDirectory


def upgrade_steps(script: "ScriptDirectory", end: str, current: Any) -> list[Any]:
    """Return the steps that `alembic upgrade` runs.

    Without the name, the steps are the same, but an unknown revision raises Alembic's RevisionError instead
    of its CommandError.
    """
    if steps := getattr(script, "_upgrade_revs", None):
        return list(steps(end, current))
    from alembic.runtime.migration import MigrationStep

    revisions = list(script.iterate_revisions(end, current, implicit_base=True))
    return [MigrationStep.upgrade_from_script(script.revision_map, each) for each in reversed(revisions)]


def downgrade_steps(script: "ScriptDirectory", end: str, current: Any) -> list[Any]:
    """Return the steps that `alembic downgrade` runs. Without the name, see `upgrade_steps`."""
    if steps := getattr(script, "_downgrade_revs", None):
        return list(steps(end, current))
    from alembic.runtime.migration import MigrationStep

    revisions = script.iterate_revisions(current, end, select_for_downgrade=True)
    return [MigrationStep.downgrade_from_script(script.revision_map, each) for each in revisions]


def compare_last(context: "AutogenContext", comparator: Callable[..., None]) -> bool:
    """Let autogenerate call a comparator of schemas after all others; returns whether it does.

    Before Alembic 1.18, or without the name, comparators run in the order in which they were imported.
    """
    comparators: Any = getattr(context, "comparators", None)
    if comparators is None:
        return False
    from alembic.util import DispatchPriority

    comparators.dispatch_for("schema", priority=DispatchPriority.LAST)(comparator)
    return True
