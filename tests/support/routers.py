"""Sessions that send statements to two engines, as those of applications do."""

from typing import Any

from sqlalchemy import Delete, Engine, Executable, Update
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Session

from oban.models import Base


def _unreachable() -> Any:
    raise AssertionError("a statement went to another database")


def unused_engine() -> AsyncEngine:
    """An engine that nothing may use."""
    return create_async_engine("sqlite+aiosqlite://", async_creator=_unreachable)


class ByStatement(Session):
    """Sends what it reads to a replica, with the arguments that SQLAlchemy's documentation shows."""

    primary: Engine
    replica: Engine = unused_engine().sync_engine

    def get_bind(self, mapper: Any = None, clause: Executable | None = None) -> Engine:  # type: ignore[override]
        if self._flushing or isinstance(clause, (Update, Delete)):
            return self.primary
        return self.replica


class ByFlush(ByStatement):
    """Sends everything but a flush to a replica."""

    def get_bind(self, mapper: Any = None, **_: Any) -> Engine:  # type: ignore[override]
        return self.primary if self._flushing else self.replica


class ByModel(ByStatement):
    """Has an engine for Oban's models, and asks its superclass for others."""

    def get_bind(self, mapper: Any = None, **more: Any) -> Engine:  # type: ignore[override]
        if mapper is not None and issubclass(mapper.class_, Base):
            return self.primary
        return Session.get_bind(self, mapper, **more)  # type: ignore[return-value]
