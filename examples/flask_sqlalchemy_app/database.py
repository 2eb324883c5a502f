"""Flask-SQLAlchemy and Flask-Migrate, for the web server and the jobs."""

from pathlib import Path

from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

from oban import migration


class Base(DeclarativeBase):
    """The base of all models. It is `db.Model` for type checkers, which do not know that one."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


db = SQLAlchemy(model_class=Base)
migrate = Migrate(
    db=db,
    directory=Path(__file__).parent / "migrations",
    include_object=migration.include_object,
    process_revision_directives=migration.process_revision_directives,
)
