"""Where the tables go: their schema, and whether the role can create tables in it."""

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from oban.errors import ObanError

# CREATE SCHEMA IF NOT EXISTS needs the privilege to create schemas even if the schema exists.
_CREATE_IN_SCRIPT = """
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = '{schema}') THEN
    CREATE SCHEMA "{schema}";
  END IF;
END $$
"""
_PRIVILEGES = text("""
SELECT quote_ident(current_user) AS role, quote_ident(current_database()) AS database,
       current_setting('search_path') AS path, quote_ident(n.nspname) AS schema,
       has_database_privilege(current_database(), 'CREATE') AS creates_schemas,
       has_schema_privilege(n.oid, 'USAGE') AND has_schema_privilege(n.oid, 'CREATE') AS creates_tables
  FROM (SELECT coalesce(CAST(:schema AS text), current_schema()) AS name) AS wanted
  LEFT JOIN pg_namespace n ON n.nspname = wanted.name
""")


def prepare(connection: Connection, schema: str | None) -> None:
    """Create the schema of new tables if it does not exist.

    Raises `ObanError` with the missing privilege if the role cannot create the schema, or tables in it.
    """
    if connection.dialect.name != "postgresql":
        return
    found = connection.execute(_PRIVILEGES, {"schema": schema}).one()
    if found.schema is None and schema is None:
        raise ObanError(
            f"no schema of the search_path, {found.path or 'which is empty'}, exists and can be used by the"
            f" role {found.role}: set another search_path, or pass a prefix"
        )
    if found.schema is None:
        if not found.creates_schemas:
            raise ObanError(
                f"the schema {schema} does not exist, and the role {found.role} cannot create it: run CREATE"
                f" SCHEMA {schema} AUTHORIZATION {found.role} as a role that can, or GRANT CREATE ON DATABASE"
                f" {found.database} TO {found.role}"
            )
        connection.execute(text(f'CREATE SCHEMA "{schema}"'))
    elif not found.creates_tables:
        raise ObanError(
            f"the role {found.role} cannot create tables in the schema {found.schema}: run GRANT USAGE,"
            f" CREATE ON SCHEMA {found.schema} TO {found.role} as the schema's owner"
        )


def prepare_in_script(context: MigrationContext, schema: str) -> None:
    """Add a statement that creates the schema if it does not exist to the script that Alembic prints."""
    context.execute(_CREATE_IN_SCRIPT.format(schema=schema))
