"""The fast path: every shortcut past SQLAlchemy's public API, behind one class with one switch.

`OBAN_FAST_PATH=off` in the environment turns it off. Everything works the same without it, only slower.
"""

import os
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.util import greenlet_spawn

from oban.database.fast import greenlets, late_state
from oban.database.fast.autocommit_pool import AutocommitPool
from oban.errors import ConfigError
from oban.models import Job

T = TypeVar("T")

SWITCH = "OBAN_FAST_PATH"
PARTS = frozenset({"greenlets", "autocommit", "compiled", "late_state"})


class FastPath:
    """The shortcuts that are in use, all of them or none; benchmarks also use some."""

    def __init__(self, parts: frozenset[str] = PARTS) -> None:
        self.parts = parts
        if "late_state" in parts:
            late_state.install(Job)

    @classmethod
    def from_environment(cls) -> "FastPath":
        """The fast path that `OBAN_FAST_PATH` asks for: "on" (the default), "off", or names of parts."""
        value = os.environ.get(SWITCH, "on").strip().lower()
        if value in ("on", "off"):
            return cls(PARTS if value == "on" else frozenset())
        parts = frozenset(value.split(","))
        if parts - PARTS:
            raise ConfigError(f"{SWITCH} must be on or off, not {value!r}")
        return cls(parts)

    async def run_sync(self, function: Callable[[], T]) -> T:
        """Run a sync function that uses SQLAlchemy on an asyncio driver; returns or raises as it does."""
        if "greenlets" in self.parts:
            return await greenlets.run_sync(function)
        return await greenlet_spawn(function)

    def autocommit_pool(self, engine: Engine, size: int) -> AutocommitPool:
        """A pool for statements that commit on their own, which keeps up to `size` connections."""
        return AutocommitPool(
            engine,
            size if "autocommit" in self.parts else 0,
            reuse_compiled="compiled" in self.parts,
        )


FAST_PATH = FastPath.from_environment()
