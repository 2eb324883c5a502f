from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy.ext.asyncio import create_async_engine

from sqlmodel_app import database


def test_the_migrations_create_what_the_models_describe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "engine", create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/test.db"))
    config = Config(Path(__file__).parents[1] / "alembic.ini")
    command.upgrade(config, "head")
    command.check(config)
