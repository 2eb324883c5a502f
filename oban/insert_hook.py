"""What else happens when a client has inserted jobs: nothing, unless `oban.testing` runs them at once."""

from collections.abc import Awaitable, Coroutine
from typing import Any, Protocol

from oban.models import Job


class InsertHook(Protocol):
    """Acts on jobs that a client has inserted. `session` is that of the call."""

    def is_needed(self) -> bool:
        """Whether it acts on what this context inserts."""

    def around_async(
        self, client: Any, insertion: Awaitable[None], session: Any, jobs: list[Job]
    ) -> Coroutine[Any, Any, None]:
        """Insert jobs of an `Oban`, and act on them."""

    def after_async(self, client: Any, session: Any, jobs: list[Job]) -> Coroutine[Any, Any, None]:
        """Act on jobs of an `Oban`."""

    def after_sync(self, client: Any, session: Any, jobs: list[Job]) -> None:
        """Act on jobs of a `SyncOban`."""


hook: InsertHook | None = None
