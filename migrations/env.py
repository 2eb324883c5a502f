"""The Alembic environment of Oban's revisions.

The URL comes from `-x url=…`, else the environment variable OBAN_DATABASE_URL, else alembic.ini. The schema
comes from `-x prefix=…`.
"""

from alembic import context

from oban import migration

migration.run_environment(context)
