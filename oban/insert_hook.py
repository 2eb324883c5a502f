"""What else happens when a client has inserted jobs: nothing, unless `oban.testing` runs them at once."""

from collections.abc import Coroutine
from typing import Any, Protocol

from oban.models import Job


class InsertHook(Protocol):
    """Acts on jobs that a client has inserted. `session` is that of the call."""

    def after_async(self, client: Any, session: Any, jobs: list[Job]) -> Coroutine[Any, Any, None]:
        """Act on jobs of an `Oban`."""

    def after_sync(self, client: Any, session: Any, jobs: list[Job]) -> None:
        """Act on jobs of a `SyncOban`."""


hook: InsertHook | None = None
