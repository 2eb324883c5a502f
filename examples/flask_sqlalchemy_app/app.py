"""The application factory: `flask --app flask_sqlalchemy_app.app run`."""

import os
from typing import Any

from flask import Flask

from oban import SyncOban

from .database import db, migrate
from .routes import routes


def create_app(**config: Any) -> Flask:
    app = Flask(__name__)
    # Flask-SQLAlchemy looks for SQLite's file in the folder `instance`, next to this package.
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("DATABASE_URL", "sqlite:///invoices.db")
    app.config.update(config)
    db.init_app(app)
    migrate.init_app(app)
    with app.app_context():
        app.extensions["oban"] = SyncOban(db.engine)
    app.register_blueprint(routes)
    return app
