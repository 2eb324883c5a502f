"""Which instance a command is about, by its settings, and a client of it."""

import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from oban import dialects
from oban.cli import target as targets
from oban.cli.options import DEFAULTS, with_settings
from oban.cli.remote.address import Address
from oban.client import Oban
from oban.database import schema_errors
from oban.documents.operations import DatabaseOperations, Operations
from oban.errors import SchemaMissing

if TYPE_CHECKING:
    from oban.cli.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """The instance that a command is about: the application's own `Oban`, or a database and options."""

    #: At least one of these three is set.
    app: str | None
    database_url: str | None
    #: The address of a dashboard, which takes precedence.
    address: Address | None
    #: Arguments for the `Oban` of a URL.
    options: Mapping[str, Any]
    #: The folders from which `app` is imported, besides installed packages.
    folders: tuple[str, ...]

    @classmethod
    def of(cls, settings: "Settings", *, remote: bool = True) -> "Instance":
        """The instance that settings describe; raises `UsageError` if they describe none.

        Without `remote`, the address of a dashboard is ignored.
        """
        address = None
        if remote and (url := settings.url) is not None:
            address = Address.of(url, settings.values.get("url_token_file"))
        app = settings.app
        database_url = None if app else settings.values.get("database_url")
        if app is None and database_url is None and address is None:
            raise click.UsageError(
                "No database: use --database-url, --app such as app.jobs:oban, the environment variable"
                f" OBAN_DATABASE_URL, or a configuration file.{settings.hint()}"
            )
        options = {key: value for key, value in settings.options.items() if key != "queues"}
        return cls(
            app=app, database_url=database_url, address=address, options=options, folders=settings.folders
        )

    @property
    def name(self) -> str:
        """The name of the instance. That of the application's own `Oban` is not known yet."""
        if self.address is not None:
            return self.address.url
        return str(self.options.get("name", DEFAULTS.name)) if self.app is None else self.app

    def call(self, function: Callable[[Oban], Awaitable[T]], *, needs_file: bool = True) -> T:
        """Call an async function with a client of the instance, on an event loop of its own.

        With `needs_file`, it raises `SchemaMissing` if the file of an SQLite URL does not exist. To connect
        would create it.

        Raises:
            UsageError: There is only the address of a dashboard.
        """
        if self.app is None and self.database_url is None:
            raise click.UsageError(
                "This command needs the database itself: use --database-url or --app instead of --url."
            )

        async def call() -> T:
            async with self.open() as oban:
                if needs_file and self.app is None:
                    _check_file(oban)
                return await function(oban)

        return asyncio.run(call())

    def operate(self, function: Callable[[Operations], Awaitable[T]], *, needs_file: bool = True) -> T:
        """Call an async function with the operations on the instance, on an event loop of its own."""
        if (address := self.address) is None:
            return self.call(lambda oban: function(DatabaseOperations(oban)), needs_file=needs_file)

        async def operate() -> T:
            from oban.cli.remote.connection import Connection
            from oban.cli.remote.operations import RemoteOperations

            async with Connection(address) as connection:
                return await function(RemoteOperations(connection))

        return asyncio.run(operate())

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Oban]:
        """A client of the instance. It runs no jobs, also if the application's `Oban` has queues."""
        if self.app is None:
            async with Oban(self.database_url or "", **self.options) as oban:
                yield oban
            return
        # As `python -m` does: the application need not be installed.
        sys.path[:0] = [folder for folder in self.folders if folder not in sys.path]
        oban = await targets.load(self.app)
        try:
            yield oban
        finally:
            await oban.engine.dispose()


def _check_file(oban: Oban) -> None:
    url, dialect = oban.engine.url, dialects.for_bind(oban.engine.sync_engine)
    if dialect.missing_file(url):
        raise SchemaMissing(schema_errors.missing(dialect, url, oban.options.prefix))


def of_instance(function: F) -> F:
    """Add the options that choose an instance. The command gets them as `instance`, an `Instance`."""

    @functools.wraps(function)
    def command(settings: "Settings", **options: Any) -> Any:
        return function(instance=Instance.of(settings), **options)

    decorated: Any = with_settings("app", "database_url", "url", "url_token_file", "prefix", "name")(command)
    return decorated  # type: ignore[no-any-return]
