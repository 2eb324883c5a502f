"""Where Alembic meets the models: finds the database, then runs the revisions in it.

The URL comes from `-x url=…`, else the environment variable OBAN_DATABASE_URL, else alembic.ini.
`-x prefix=…` names a schema.
"""

from alembic import context

from oban import migration

migration.run_environment(context)
