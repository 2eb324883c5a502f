"""Which instance a command is about: the options that say so, and a client of it."""

import asyncio
import functools
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from oban.cli import target as targets
from oban.cli.schema import prefix
from oban.client import Oban
from oban.config import Options

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_OPTIONS = ("app", "database_url", "prefix", "name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """The instance that a command is about: the application's own `Oban`, or a database and a name."""

    #: One of these two is set. A URL takes precedence.
    app: str | None
    database_url: str | None
    prefix: str | None
    name: str

    def call(self, function: Callable[[Oban], Awaitable[T]]) -> T:
        """Call an async function with a client of the instance, on an event loop of its own."""

        async def call() -> T:
            async with self.open() as oban:
                return await function(oban)

        return asyncio.run(call())

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Oban]:
        """A client of the instance. It runs no jobs, also if the application's `Oban` has queues."""
        if self.database_url is not None:
            async with Oban(self.database_url, prefix=self.prefix, name=self.name) as oban:
                yield oban
            return
        # As `python -m` does: the application need not be installed.
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        oban = await targets.load(self.app or "")
        try:
            yield oban
        finally:
            await oban.engine.dispose()


def of_instance(function: F) -> F:
    """Add the options that choose an instance. The command gets them as `instance`, an `Instance`."""

    @functools.wraps(function)
    def command(**options: Any) -> Any:
        chosen = {option: options.pop(option) for option in _OPTIONS}
        if chosen["database_url"] is None and chosen["app"] is None:
            raise click.UsageError(
                "No database: use --database-url, --app such as app.jobs:oban, or the environment variable"
                " OBAN_DATABASE_URL."
            )
        return function(instance=Instance(**chosen), **options)

    decorated: Any = command
    for option in (
        click.option("--name", default=Options().name, show_default=True, help="The name of the instance."),
        prefix,
        click.option(
            "--database-url",
            envvar="OBAN_DATABASE_URL",
            metavar="URL",
            help="Such as postgresql+asyncpg://user@host/name or sqlite+aiosqlite:///file.db"
            " (default: the environment variable OBAN_DATABASE_URL).",
        ),
        click.option(
            "--app",
            metavar="TARGET",
            envvar="OBAN_APP",
            help="Instead of a URL: the application's own Oban, or a function that returns it, such as"
            " app.jobs:oban.",
        ),
    ):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]
