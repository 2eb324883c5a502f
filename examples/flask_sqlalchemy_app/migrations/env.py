"""The Alembic environment of `flask db`: the application's tables and Oban's."""

from logging.config import fileConfig
from typing import Any

from alembic import context
from flask import current_app

from flask_sqlalchemy_app import models  # noqa: F401  (defines the tables of db.metadata)
from flask_sqlalchemy_app.database import db
from oban import migration

if context.config.config_file_name:
    # Tests upgrade in their own process, whose loggers must go on.
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)


def run(**options: Any) -> None:
    # Among them what the application passes to Migrate.
    options = {**current_app.extensions["migrate"].configure_args, **options}
    context.configure(target_metadata=[db.metadata, migration.metadata], **options)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    run(url=db.engine.url, literal_binds=True)
else:
    with db.engine.connect() as connection:
        run(connection=connection)
