"""The schema: Oban's Alembic revisions, run from Python, and hooks for your own Alembic `env.py`.

`upgrade` and `downgrade` do what `alembic upgrade head` and `alembic downgrade base` do in a checkout.
Oban records its revision in its own table, `oban_alembic_version`, not in the application's.
"""

from oban.ddl import VERSION_TABLE
from oban.migration.autogenerate import include_object, process_revision_directives
from oban.migration.commands import downgrade, upgrade
from oban.migration.environment import run_environment
from oban.models import metadata

__all__ = [
    "VERSION_TABLE",
    "downgrade",
    "include_object",
    "metadata",
    "process_revision_directives",
    "run_environment",
    "upgrade",
]
