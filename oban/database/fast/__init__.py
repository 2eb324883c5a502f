"""The fast path: every shortcut past SQLAlchemy's public API, behind one class with one switch.

`OBAN_FAST_PATH=off` in the environment turns it off. Everything works the same without it, only slower.
"""

import os
from collections.abc import Iterable

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from oban.database.fast import in_session, late_state
from oban.database.fast.autocommit_pool import AutocommitPool, Owners
from oban.database.fast.in_session import TransactionStatements
from oban.errors import ConfigError
from oban.models import Job

SWITCH = "OBAN_FAST_PATH"
PARTS = frozenset({"autocommit", "compiled", "in_session", "late_state"})


class FastPath:
    """The shortcuts that this process uses: all of them, none, or some of them to measure each one."""

    def __init__(self, parts: frozenset[str]) -> None:
        self.parts = parts
        #: None if SQLAlchemy runs all statements in transactions.
        self.statements = TransactionStatements() if "in_session" in parts else None
        if "late_state" in parts:
            late_state.install(Job)

    @classmethod
    def from_environment(cls) -> "FastPath":
        """The fast path that `OBAN_FAST_PATH` asks for.

        The value is "on" (the default), "off", or the names of some parts with commas between them. Raises
        `ConfigError` for any other.
        """
        value = os.environ.get(SWITCH, "on").strip().lower()
        parts = {"on": PARTS, "off": frozenset[str]()}.get(value, frozenset(value.split(",")))
        if parts - PARTS:
            raise ConfigError(f"{SWITCH} must be on or off, not {value!r}")
        return cls(parts)

    def autocommit_pool(self, engine: Engine, size: int, owners: Owners) -> AutocommitPool:
        """A pool for statements that commit on their own, which keeps up to `size` connections."""
        return AutocommitPool(
            engine,
            size if "autocommit" in self.parts else 0,
            owners,
            reuse_compiled="compiled" in self.parts,
        )

    def add_all(self, session: Session, instances: Iterable[object]) -> None:
        """Add instances to a session."""
        if self.statements is None:
            session.add_all(instances)
        else:
            in_session.add_all(session, instances)


FAST_PATH = FastPath.from_environment()
