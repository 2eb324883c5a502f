"""`oban start`: one node in this process, or several in child processes."""

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
from oban.cli.schema import database_url, prefix
from oban.cli.supervisor import Supervisor
from oban.config import NOTIFIERS, Options
from oban.errors import ConfigError

logger = logging.getLogger("oban")

MAX_PROCESSES = 256
DEFAULTS = Options()


class Queues(click.ParamType[dict[str, int]]):
    """Queue names and limits, such as `default:10,media:2`."""

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
                self.fail(f"{queue!r} is listed twice", param, ctx)
            queues[queue] = int(limit or 10)
        return queues


@click.command()
@database_url
@prefix
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
    help="A module that defines workers. Only imported workers can run. Can be repeated.",
)
@click.option("--name", default=DEFAULTS.name, show_default=True, help="The name of the instance.")
@click.option("--node", help="The name of this node.  [default: the host name]")
@click.option(
    "--processes",
    type=click.IntRange(1, MAX_PROCESSES),
    default=1,
    show_default=True,
    help="How many nodes to run, named NODE-1, NODE-2, …, each in a child process that is restarted when it"
    " dies.",
)
@click.option(
    "--lease",
    type=float,
    default=DEFAULTS.lease,
    show_default=True,
    metavar="SECONDS",
    help="Time without a heartbeat after which this node counts as dead and its jobs are rescued.",
)
@click.option(
    "--shutdown-grace-period",
    type=click.FloatRange(min=0),
    default=DEFAULTS.shutdown_grace_period,
    show_default=True,
    metavar="SECONDS",
    help="How long running jobs can continue after SIGTERM or Ctrl-C, before they go back to the queue.",
)
@click.option(
    "--notifier",
    type=click.Choice(NOTIFIERS),
    default=DEFAULTS.notifier,
    show_default=True,
    help="How the node hears of changes; poll works through a pooler in transaction mode.",
)
@click.option(
    "--listen-url",
    envvar="OBAN_LISTEN_URL",
    metavar="URL",
    help="A direct URL for LISTEN, past a pooler (default: the environment variable OBAN_LISTEN_URL).",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
# The file descriptor of the socket to the supervisor that started this process.
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
    """Run jobs until SIGTERM or Ctrl-C. A second signal stops waiting for running jobs."""
    nodes.exit_on_signals()
    node = node or socket.gethostname()
    # The log lines of several nodes go to the same place.
    origin = "" if processes == 1 and supervisor is None else f"{node}  ".replace("%", "%%")
    logging.basicConfig(
        level=log_level.upper(), format=f"%(asctime)s %(levelname)-7s {origin}%(name)s  %(message)s"
    )
    logger.info("starting, process %s", os.getpid())
    link = None if supervisor is None else socket.socket(fileno=supervisor)
    if link:
        # Processes that jobs start must not get it.
        link.set_inheritable(False)
    if processes > 1:
        sys.exit(_supervise(database_url, modules, node, processes, log_level, settings))
    _import(modules)
    oban = Oban(database_url, node=node, **settings)
    # Imported modules live as long as the process: spare garbage collections the scan of them.
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
    # Report wrong options once, here, rather than from each process. This does not connect.
    Oban(database_url, node=names[-1], **settings)
    arguments = ["--log-level", log_level]
    for module in modules:
        arguments += ["--import", module]
    # URLs can contain passwords, and every user can see the arguments of a process.
    environment = {**os.environ, "OBAN_DATABASE_URL": database_url}
    if listen_url := settings.pop("listen_url"):
        environment["OBAN_LISTEN_URL"] = listen_url
    queues = settings.pop("queues")
    arguments += ["--queues", ",".join(f"{queue}:{limit}" for queue, limit in queues.items())]
    for option, value in settings.items():
        if value is not None:
            arguments += [f"--{option.replace('_', '-')}", str(value)]

    def command(name: str, link: int) -> list[str]:
        start = [sys.executable, "-m", "oban", "start", *arguments]
        return [*start, "--node", name, "--supervisor", str(link)]

    return asyncio.run(Supervisor(command, names, environment, settings["shutdown_grace_period"]).run())


def _import(modules: tuple[str, ...]) -> None:
    sys.path.insert(0, os.getcwd())
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"--import {module}: {error}") from error
