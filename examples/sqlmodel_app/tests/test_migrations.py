from alembic import command
from alembic.config import Config


def test_the_migrations_create_what_the_models_describe(migrated: Config) -> None:
    command.check(migrated)
