"""`oban start`: one node in a process of its own."""

import asyncio
import contextlib
import gc
import importlib
import importlib.util
import logging
import os
import signal
import sys
from collections.abc import Callable

import click

from oban import Oban
from oban.cli import options
from oban.errors import ConfigError, DatabaseUnavailable

logger = logging.getLogger("oban")

#: Seconds between two attempts to reach the database at the start.
RETRY = 2.0


class Queues(click.ParamType[dict[str, int]]):
    """`default:10,media:2`: names and how many jobs of each run at once."""

    name = "queues"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, int]:
        queues: dict[str, int] = {}
        for item in str(value).split(","):
            queue, _, limit = item.strip().partition(":")
            if not queue or (limit and not limit.isascii()) or not (limit or "10").isdigit():
                self.fail(f"{item!r} is not NAME:LIMIT, such as default:10", param, ctx)
            if queue in queues:
                self.fail(f"{queue!r} is named twice", param, ctx)
            queues[queue] = int(limit or 10)
        return queues


@click.command()
@options.database_url
@options.prefix
@click.option(
    "--queues",
    type=Queues(),
    default="default:10",
    show_default=True,
    metavar="NAME:LIMIT,…",
    help="The queues to run, and how many jobs of each run at once.",
)
@click.option(
    "--import",
    "modules",
    multiple=True,
    metavar="MODULE",
    help="A module that defines workers; only these can run. Repeatable.",
)
@click.option("--name", default="Oban", show_default=True, help="The name of the instance.")
@click.option("--node", help="The name of this node.  [default: the host name]")
@click.option(
    "--shutdown-grace-period",
    type=click.FloatRange(min=0),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="How long running jobs may go on after SIGTERM or Ctrl-C; then they are put back.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
def start(
    database_url: str,
    prefix: str | None,
    queues: dict[str, int],
    modules: tuple[str, ...],
    name: str,
    node: str | None,
    shutdown_grace_period: float,
    log_level: str,
) -> None:
    """Run jobs until SIGTERM or Ctrl-C. A second signal does not wait for running jobs."""
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s  %(message)s")
    _import(modules)
    oban = Oban(
        database_url,
        prefix=prefix,
        queues=queues,
        name=name,
        node=node,
        shutdown_grace_period=shutdown_grace_period,
    )
    # What has been imported stays: collections need not look through it again and again.
    gc.collect()
    gc.freeze()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(oban))
        # A job in a thread cannot be stopped, and Python would wait for it: its row is back in the
        # queue already, so there is nothing to wait for.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)


def _import(modules: tuple[str, ...]) -> None:
    sys.path.insert(0, os.getcwd())
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"--import {module}: {error}") from error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if importlib.util.find_spec("uvloop") is None:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    return factory


async def _serve(oban: Oban) -> None:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    stopping: list[asyncio.Task[None]] = []

    def stop() -> None:
        if asked.is_set():
            logger.info("not waiting for running jobs any longer")
            stopping.append(asyncio.create_task(oban.stop()))
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    if not await _started(oban, asked):
        return
    await asked.wait()
    logger.info("stopping: waiting for running jobs, %g s at most", oban.options.shutdown_grace_period)
    await oban.stop()
    await asyncio.gather(*stopping)
    logger.info("stopped")


async def _started(oban: Oban, asked: asyncio.Event) -> bool:
    """Start, however long the database takes to be reachable; False when asked to stop before."""
    while not asked.is_set():
        starting = asyncio.create_task(oban.start())
        waiting = asyncio.create_task(asked.wait())
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not starting.done():
            starting.cancel()
        try:
            await starting
        except asyncio.CancelledError:
            break
        except DatabaseUnavailable as error:
            logger.error("%s; trying again in %g s", error, RETRY)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asked.wait(), RETRY)
        else:
            return True
    return False
