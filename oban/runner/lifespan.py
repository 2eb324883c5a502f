"""The application's context around a node: entered before its first job, exited after its last."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from oban import callables, clock
from oban.errors import ConfigError
from oban.runner import deadlines

logger = logging.getLogger("oban.runner")


class Lifespan:
    """Enters and exits the context manager that `make` returns, in one task.

    Some context managers, such as task groups, have to be exited in the task that entered them.
    """

    def __init__(self, make: Callable[[], Any] | None, name: str = "") -> None:
        self._make = make
        self._name = name
        self._task: asyncio.Task[None] | None = None
        self._has_entered = False
        self._leaving = asyncio.Event()
        #: What `enter` has raised.
        self.error: BaseException | None = None

    async def enter(self) -> Any:
        """Enter it and return what it yields; None without a lifespan. Raises what the application raises."""
        # It refers to the client, which can be freed when the node has stopped.
        make, self._make = self._make, None
        if make is None:
            return None
        try:
            return await self._enter(make)
        except BaseException as error:
            self.error = error
            raise

    async def _enter(self, make: Callable[[], Any]) -> Any:
        entered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(make, entered), name="oban-lifespan")
        await asyncio.wait({self._task, entered}, return_when=asyncio.FIRST_COMPLETED)
        if not entered.done():
            self._task.result()
        self._has_entered = True
        self._task.add_done_callback(self._on_done)
        return entered.result()

    def refuse_within(self) -> None:
        """Raise `ConfigError` in the code of the lifespan itself, which would wait for itself."""
        if self._task is not None and self._task is asyncio.current_task():
            raise ConfigError(
                f"lifespan {self._name} cannot start or stop its Oban: start() enters it, and stop() exits it"
            )

    async def _run(self, make: Callable[[], Any], entered: "asyncio.Future[Any]") -> None:
        manager = make()
        if not (hasattr(type(manager), "__aenter__") and hasattr(type(manager), "__aexit__")):
            if asyncio.iscoroutine(manager):
                manager.close()
            raise ConfigError(
                f"lifespan {self._name} must return an async context manager, not an object of the type"
                f" {type(manager).__name__}: decorate it with contextlib.asynccontextmanager"
            )
        async with manager as yielded:
            entered.set_result(yielded)
            await self._leaving.wait()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not self._leaving.is_set() and not task.cancelled():
            logger.error("lifespan %s has ended while jobs run", self._name, exc_info=task.exception())

    async def exit(self, grace: float, seconds: float, hurried: asyncio.Event) -> None:
        """Exit it. Raises what the application raises, or `TimeoutError`.

        An error that ended it before is logged already, or was raised by `enter`.

        Args:
            grace: The grace period in seconds.
            seconds: How long it can take after the grace period.
            hurried: Ends the grace period.
        """
        task = self._task
        if task is None or (task.done() and not self._leaving.is_set()):
            return
        self._leaving.set()
        if not self._has_entered:
            task.cancel()
        started_at = clock.monotonic()
        hurry = asyncio.create_task(hurried.wait())
        await asyncio.wait({task, hurry}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            elapsed = clock.monotonic() - started_at
            await deadlines.cancel_all({task})
            raise TimeoutError(f"lifespan {self._name} did not end within {elapsed:.1f} s")
        if not task.cancelled():
            task.result()


def make_lifespan(function: Callable[[Any], Any] | None, oban: Any) -> Lifespan:
    """The lifespan of a node, from the option `lifespan` of its client."""
    if function is None:
        return Lifespan(None)
    return Lifespan(lambda: function(oban), callables.name(function))
