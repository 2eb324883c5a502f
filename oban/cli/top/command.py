"""`oban top`."""

import asyncio
import logging
import signal
import sys
from typing import Any

import click

from oban.cli import output
from oban.cli.documents import DOCUMENTS
from oban.cli.instance import Instance, of_instance
from oban.cli.options import with_target
from oban.cli.top import plain
from oban.cli.top.snapshot import Snapshot
from oban.cli.top.source import Source, problem
from oban.client import Oban

_INSTALL = (
    "`oban top` needs the package textual: pip install 'oban-sqlalchemy[top]'. Without it, --once prints what"
    " it would show."
)


@click.command()
@with_target
@click.option(
    "--interval",
    type=click.FloatRange(0.5, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often the view is refreshed.",
)
@click.option(
    "--filter",
    "filter_",
    default="",
    metavar="TEXT",
    help="Only queues and workers whose names contain this.",
)
@click.option("--once", is_flag=True, help="Print the tables once, and end.")
@of_instance
@output.json_option
def top(instance: Instance, interval: float, filter_: str, once: bool, as_json: bool) -> None:
    """Watch queues, jobs, failures and nodes, and act on them.

    c, r and d cancel, retry and delete a job, Enter shows its details, p, u, + and - pause, resume and scale
    a queue, and q quits. ? shows all keys. TARGET is the same as --app.
    """
    if as_json or once:
        snapshot = instance.call(lambda oban: _read(oban, filter_))
        if as_json:
            output.document(DOCUMENTS["top"], snapshot)
        else:
            plain.print_snapshot(snapshot)
        return
    try:
        from oban.cli.top.screen import Top
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        raise click.ClickException(_INSTALL) from None
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError(
            "The live view needs a terminal. Use --once to print it once, or --json for other programs."
        )
    if received := instance.call(lambda oban: _watch(oban, Top, interval, filter_)):
        sys.exit(128 + received)


async def _read(oban: Oban, filter_: str) -> Snapshot:
    source = Source(oban)
    try:
        return await _first(oban, source, filter_)
    finally:
        await source.close()


async def _first(oban: Oban, source: Source, filter_: str) -> Snapshot:
    try:
        return await source.read(filter_)
    except TimeoutError as error:
        raise click.ClickException(problem(oban, error)) from error


async def _watch(oban: Oban, view: Any, interval: float, filter_: str) -> int:
    """Show the live view until it ends. Returns the signal that ended it, or 0."""
    source = Source(oban)
    received = 0
    try:
        # Before the screen changes: what is wrong with the options is an ordinary error.
        app = view(oban, source, await _first(oban, source, filter_), interval, filter_)

        def end(number: int) -> None:
            nonlocal received
            received = number
            app.exit()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            loop.add_signal_handler(number, end, number)
        # A handler that the application has made would write into the middle of the screen.
        logging.disable()
        # Without the mouse, the terminal's own selection of text works.
        await app.run_async(mouse=False)
        if app.return_code:
            sys.exit(app.return_code)
        return received
    finally:
        logging.disable(logging.NOTSET)
        await source.close()
