"""`oban start`: one node in this process, or several in processes of their own."""

import asyncio
import gc
import importlib
import logging
import os
import socket
import sys
from typing import Any

import click

from oban import Oban
from oban.cli import node as nodes
from oban.cli import options
from oban.cli.supervisor import Supervisor
from oban.config import NOTIFIERS
from oban.errors import ConfigError

logger = logging.getLogger("oban")

MAX_PROCESSES = 256


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
    "--processes",
    type=click.IntRange(1, MAX_PROCESSES),
    default=1,
    show_default=True,
    help="How many nodes to run, each in a process of its own that is started again when it dies."
    " They are named NODE-1, NODE-2, …",
)
@click.option(
    "--lease",
    type=float,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long this node counts as alive after it was last heard of; then its jobs are rescued.",
)
@click.option(
    "--shutdown-grace-period",
    type=click.FloatRange(min=0),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="How long running jobs may go on after SIGTERM or Ctrl-C; then they are put back.",
)
@click.option(
    "--notifier",
    type=click.Choice(NOTIFIERS),
    default="listen",
    show_default=True,
    help="How to hear of changes; poll where a pooler in transaction mode is in between.",
)
@click.option(
    "--listen-url",
    envvar="OBAN_LISTEN_URL",
    metavar="URL",
    help="A URL for LISTEN alone, past the pooler (default: the environment variable OBAN_LISTEN_URL).",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
# The file descriptor of the socket to the supervisor that has started this process.
@click.option("--supervisor", type=int, hidden=True)
def start(
    database_url: str,
    modules: tuple[str, ...],
    node: str | None,
    processes: int,
    log_level: str,
    supervisor: int | None,
    **settings: Any,
) -> None:
    """Run jobs until SIGTERM or Ctrl-C. A second signal does not wait for running jobs."""
    nodes.leave_at_signals()
    node = node or socket.gethostname()
    # Lines of several processes come together in one place.
    origin = "" if processes == 1 and supervisor is None else f"{node}  ".replace("%", "%%")
    logging.basicConfig(
        level=log_level.upper(), format=f"%(asctime)s %(levelname)-7s {origin}%(name)s  %(message)s"
    )
    logger.info("starting, process %s", os.getpid())
    link = None if supervisor is None else socket.socket(fileno=supervisor)
    if link:
        # Not for the processes that jobs make.
        link.set_inheritable(False)
    if processes > 1:
        sys.exit(_supervise(database_url, modules, node, processes, log_level, settings))
    _import(modules)
    oban = Oban(database_url, node=node, **settings)
    # What has been imported stays: collections need not look through it again and again.
    gc.collect()
    gc.freeze()
    nodes.run(oban, link)


def _supervise(
    database_url: str,
    modules: tuple[str, ...],
    node: str,
    processes: int,
    log_level: str,
    settings: dict[str, Any],
) -> int:
    names = [f"{node}-{number}" for number in range(1, processes + 1)]
    # What is wrong with the options is said once, here. The database is not touched.
    Oban(database_url, node=names[-1], **settings)
    arguments = ["--log-level", log_level]
    for module in modules:
        arguments += ["--import", module]
    # URLs may hold passwords, and the arguments of a process are for all to see.
    environment = {**os.environ, "OBAN_DATABASE_URL": database_url}
    if listen_url := settings.pop("listen_url"):
        environment["OBAN_LISTEN_URL"] = listen_url
    queues = settings.pop("queues")
    arguments += ["--queues", ",".join(f"{queue}:{limit}" for queue, limit in queues.items())]
    for option, value in settings.items():
        if value is not None:
            arguments += [f"--{option.replace('_', '-')}", str(value)]

    def command(name: str, link: int) -> list[str]:
        own = ["--node", name, "--supervisor", str(link)]
        return [sys.executable, "-m", "oban", "start", *arguments, *own]

    async def supervise() -> int:
        return await Supervisor(command, names, environment, settings["shutdown_grace_period"]).run()

    return asyncio.run(supervise())


def _import(modules: tuple[str, ...]) -> None:
    sys.path.insert(0, os.getcwd())
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"--import {module}: {error}") from error
