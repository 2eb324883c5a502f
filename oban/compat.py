"""Every private name of SQLAlchemy and Alembic that Oban uses, each with what happens if it disappears.

None of them may keep a node from starting. The upper bounds of the dependencies in `pyproject.toml` exist
because of this module.
"""

from typing import Any

from alembic.runtime.migration import MigrationStep
from alembic.script import ScriptDirectory
from sqlalchemy.sql.compiler import SQLCompiler

# -- SQLAlchemy: types ------------------------------------------------------------------------------


def compiles_distinct(compiler: SQLCompiler) -> bool:
    """Whether the SELECT that is being compiled is DISTINCT: `Select._distinct`, on `SQLCompiler.stack`.

    Without them, False: on PostgreSQL, a SELECT DISTINCT of jobs that is ordered by a time fails.
    """
    stack: Any = getattr(compiler, "stack", None)
    return bool(stack) and bool(getattr(stack[-1].get("selectable"), "_distinct", False))


# -- Alembic: migrations ----------------------------------------------------------------------------


def upgrade_steps(script: ScriptDirectory, end: str, current: Any) -> list[Any]:
    """The steps that `alembic upgrade` runs: `ScriptDirectory._upgrade_revs`.

    Without it, the same steps; an unknown revision raises Alembic's RevisionError, not its CommandError.
    """
    if steps := getattr(script, "_upgrade_revs", None):
        return list(steps(end, current))
    revisions = list(script.iterate_revisions(end, current, implicit_base=True))
    return [MigrationStep.upgrade_from_script(script.revision_map, each) for each in reversed(revisions)]


def downgrade_steps(script: ScriptDirectory, end: str, current: Any) -> list[Any]:
    """The steps that `alembic downgrade` runs: `ScriptDirectory._downgrade_revs`; without it, as above."""
    if steps := getattr(script, "_downgrade_revs", None):
        return list(steps(end, current))
    revisions = script.iterate_revisions(current, end, select_for_downgrade=True)
    return [MigrationStep.downgrade_from_script(script.revision_map, each) for each in revisions]
