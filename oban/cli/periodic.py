"""`oban periodic list`, `pause`, `resume` and `run`."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click

from oban.cli.schema import database_url, prefix
from oban.client import Oban
from oban.config import Options
from oban.error_texts import log_safe
from oban.periodic import PeriodicInfo

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_HEADINGS = ("NAME", "EXPRESSION", "TIMEZONE", "WORKER", "QUEUE", "STATE", "LAST (UTC)", "NEXT (UTC)")


@click.group()
def periodic() -> None:
    """List and control the periodic jobs of an instance."""


def _of_instance(function: F) -> F:
    """The options that say which instance a command is about."""
    name = click.option("--name", default=Options().name, show_default=True, help="The name of the instance.")
    return database_url()(prefix(name(function)))


def _call(database_url: str, prefix: str | None, name: str, function: Callable[[Oban], Awaitable[T]]) -> T:
    """Call a function with a client of the instance."""

    async def call() -> T:
        async with Oban(database_url, prefix=prefix, name=name) as oban:
            return await function(oban)

    return asyncio.run(call())


@periodic.command("list")
@_of_instance
def list_(**instance: Any) -> None:
    """List the periodic entries, with their last and their next time."""
    entries = _call(**instance, function=lambda oban: oban.list_periodic())
    if not entries:
        click.echo(
            f"The instance {instance['name']} has no periodic entries."
            " A node stores those of its code when it starts."
        )
        return
    for line in _table([_HEADINGS, *map(_cells, entries)]):
        click.echo(line)


def _cells(entry: PeriodicInfo) -> tuple[str, ...]:
    state = "gone" if entry.gone else "paused" if entry.paused else "active"
    if entry.overridden:
        state += ", changed"
    texts = (entry.name, entry.expression, entry.timezone, entry.worker, entry.queue)
    return (*map(log_safe, texts), state, _time(entry.last_tick), _time(entry.next_at))


def _time(time: datetime | None) -> str:
    return "-" if time is None else f"{time:%Y-%m-%d %H:%M:%S}"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines in which the columns are aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = (map(str.ljust, row, widths) for row in rows)
    return ["  ".join(cells).rstrip() for cells in padded]


@periodic.command()
@click.argument("entry")
@_of_instance
def pause(entry: str, **instance: Any) -> None:
    """Let ENTRY insert no jobs until it is resumed."""
    _call(**instance, function=lambda oban: oban.pause_periodic(entry))
    click.echo(f"{entry} is paused.")


@periodic.command()
@click.argument("entry")
@_of_instance
def resume(entry: str, **instance: Any) -> None:
    """Let ENTRY insert jobs again, from its next time on."""
    _call(**instance, function=lambda oban: oban.resume_periodic(entry))
    click.echo(f"{entry} is active.")


@periodic.command()
@click.argument("entry")
@_of_instance
def run(entry: str, **instance: Any) -> None:
    """Insert a job of ENTRY now, also if it is paused."""
    job = _call(**instance, function=lambda oban: oban.run_periodic(entry))
    if job.conflict:
        raise click.ClickException(
            f"no job of {entry} was inserted: it is unique, and job {job.id}, which is {job.state},"
            " is in the way"
        )
    click.echo(f"Job {job.id} of {entry} is in the queue {job.queue}.")
