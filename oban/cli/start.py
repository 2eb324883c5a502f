"""`oban start`: one node in this process, or nodes in child processes."""

import asyncio
import gc
import logging
import os
import socket
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from oban import Oban, QueueOptions, forks, stop_signals
from oban.cli import node as nodes
from oban.cli import target as targets
from oban.cli.logs import FORMATS, LEVELS, Console
from oban.cli.schema import database_url, prefix
from oban.cli.supervisor import Supervisor
from oban.cli.watch import Watcher
from oban.config import NOTIFIERS, Options, check_name
from oban.errors import ConfigError

logger = logging.getLogger("oban")

MAX_PROCESSES = 256
DEFAULTS = Options()
#: The options that override those of TARGET. It has made its engine with the values of all others.
OVERRIDES = {"queues", "node", "lease", "shutdown_grace_period"}


def _parse_queues(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """Queue names and limits, such as `default:10,media:2`, from all occurrences of the option."""
    queues: dict[str, int] = {}
    for item in ",".join(values).split(","):
        queue, colon, limit = item.strip().partition(":")
        if not queue or (colon and not (limit.isascii() and limit.isdigit())):
            raise click.BadParameter(f"{item!r} is not NAME:LIMIT, such as default:10", ctx, param)
        if queue in queues:
            raise click.BadParameter(f"{queue!r} is listed twice", ctx, param)
        queues[queue] = int(limit) if colon else QueueOptions().limit
    return queues


@click.command()
@click.argument("target", required=False)
@database_url(required=False)
@prefix
@click.option(
    "--queues",
    multiple=True,
    callback=_parse_queues,
    default=["default:10"],
    metavar="NAME:LIMIT,…",
    help="The queues to run, and how many jobs of each run at once. Can be repeated."
    "  [default: the queues of TARGET, else default:10]",
)
@click.option(
    "--import",
    "modules",
    multiple=True,
    metavar="MODULE",
    help="A module that defines workers. Only imported workers can run. Can be repeated.",
)
@click.option("--name", default=DEFAULTS.name, show_default=True, help="The name of the instance.")
@click.option("--node", help="The name of this node.  [default: the node of TARGET, else the host name]")
@click.option(
    "--processes",
    type=click.IntRange(1, MAX_PROCESSES),
    default=1,
    show_default=True,
    help="How many nodes to run, named NODE-1, NODE-2, …, each in a child process that is restarted when it"
    " dies.",
)
@click.option(
    "--watch",
    is_flag=True,
    help="Restart the node when a Python file in the current directory changes, for development. Needs"
    " oban-sqlalchemy[watch].",
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
    type=click.Choice(LEVELS),
    default="info",
    show_default=True,
    help="The least level of Oban's own log records. The application configures its other loggers.",
)
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="How to write log records to stderr: as lines of text, or as one JSON object per line. With app, the"
    " handlers of the application write them.",
)
# The file descriptor of the socket to the supervisor that started this process.
@click.option("--supervisor", type=int, hidden=True)
# The names of all of the supervisor's nodes, for the banner of the first one; empty if there is only one.
@click.option("--announced", hidden=True)
@click.pass_context
def start(
    ctx: click.Context,
    /,
    target: str | None,
    modules: tuple[str, ...],
    processes: int,
    watch: bool,
    log_level: str,
    log_format: str,
    supervisor: int | None,
    announced: str | None,
    **options: Any,
) -> None:
    """Run jobs until SIGTERM, SIGHUP or Ctrl-C. A second SIGTERM or Ctrl-C stops waiting for running jobs.

    TARGET is the application's own Oban, or a function that returns it, as MODULE:ATTRIBUTE, such as
    app.jobs:oban. It knows its database and all its options. --queues, --node, --lease and
    --shutdown-grace-period override them. Without a TARGET, --database-url is required.
    """
    stop_signals.exit_on_signals()
    forks.guard()
    settings = _settings(ctx, target, options)
    node = settings.get("node", socket.gethostname())
    # The log lines of several nodes go to the same place.
    has_children = processes > 1 or watch
    console = Console(log_level, log_format, node, prefix=has_children or supervisor is not None)
    console.apply()
    with console.errors():
        logger.info("starting, process %s", os.getpid())
        # The nodes of several processes get names that begin with it.
        check_name("node", node)
        link = None if supervisor is None else socket.socket(fileno=supervisor)
        if link:
            # Processes that jobs start must not get it.
            link.set_inheritable(False)
        if watch and processes > 1:
            raise ConfigError("--watch runs one node: leave out --processes")
        if has_children:
            names = [f"{node}-{number}" for number in range(1, processes + 1)] if processes > 1 else [node]
            output = ["--log-level", log_level, "--log-format", log_format]
            _supervise(target, modules, names, watch, output, settings)
        sys.path.insert(0, os.getcwd())
        for module in modules:
            targets.import_module(module, f"--import {module}")
        instance = _instance(targets.load(target) if target else None, settings)
        console.apply()
        # Imported modules live as long as the process: spare garbage collections the scan of them.
        gc.collect()
        gc.freeze()
        nodes.run(instance, link, console, announced)


def _settings(ctx: click.Context, target: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """The options of the instance that the user has set; raises `UsageError` for those of TARGET alone."""
    sources = {option: ctx.get_parameter_source(option) for option in options}
    chosen = {option: options[option] for option in options if sources[option] is not ParameterSource.DEFAULT}
    if target is None:
        if not chosen.get("database_url"):
            raise click.UsageError("Missing option '--database-url', or a TARGET such as app.jobs:oban.")
        return {"queues": options["queues"], **chosen}
    for option in chosen:
        # The environment may be meant for other commands, such as `oban install`.
        if option not in OVERRIDES and sources[option] is not ParameterSource.ENVIRONMENT:
            raise click.UsageError(
                f"{_flag(option)} cannot be combined with {target}: it is an option of that Oban."
            )
    return {option: chosen[option] for option in chosen.keys() & OVERRIDES}


async def _instance(target: Coroutine[Any, Any, Oban] | None, settings: dict[str, Any]) -> Oban:
    if target is None:
        return _make(settings)
    oban = await target
    queues = oban.options.queues or {"default": QueueOptions()}
    oban.options = oban.options.replace(**{"queues": queues, **settings})
    return oban


def _make(settings: dict[str, Any]) -> Oban:
    return Oban(
        settings["database_url"], **{key: settings[key] for key in settings.keys() - {"database_url"}}
    )


def _supervise(
    target: str | None,
    modules: tuple[str, ...],
    names: list[str],
    watch: bool,
    output: list[str],
    settings: dict[str, Any],
) -> NoReturn:
    if target is None:
        # Report wrong options once, here, rather than from each process. This does not connect.
        _make({**settings, "node": names[-1]})
    arguments = [*([target] if target else []), *output]
    for module in modules:
        arguments += ["--import", module]
    environment = {**os.environ}
    for option, value in settings.items():
        if option == "node":
            continue
        if option.endswith("_url"):
            # URLs can contain passwords, and every user can see the arguments of a process.
            environment[f"OBAN_{option.upper()}"] = value
        elif option == "queues":
            arguments += ["--queues", ",".join(f"{queue}:{limit}" for queue, limit in value.items())]
        else:
            arguments += [_flag(option), str(value)]

    # The first node prints the banner for all of them, when it is started for the first time.
    banner = iter(["--announced", f"{names[0]} to {names[-1]}"])

    def command(name: str, link: int) -> list[str]:
        start = [sys.executable, "-m", "oban", "start", *arguments, "--supervisor", str(link)]
        if not watch:
            return [*start, "--node", name, *banner]
        # TARGET can have a name for its node. The workers and queues may be others after each change.
        return [*start, *(["--node", name] if "node" in settings else []), "--announced", ""]

    grace = settings.get("shutdown_grace_period", DEFAULTS.shutdown_grace_period)
    with asyncio.Runner() as runner:
        if watch:
            runner.run(Watcher(command, names[0], environment, grace).run())
            stop_signals.exit_now()
        # Closing the loop would give the signals their default actions again.
        stop_signals.exit_with(runner.run(Supervisor(command, names, environment, grace).run()))


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"
