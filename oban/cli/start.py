"""`oban start`: one node in this process, or nodes in child processes."""

import asyncio
import gc
import logging
import os
import socket
import sys
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import click

from oban import Oban, QueueOptions, forks, stop_signals
from oban.cli import node as nodes
from oban.cli import options as setting_options
from oban.cli import target as targets
from oban.cli.logs import Console
from oban.cli.metrics_server import MetricsServer, NodesMetrics, serve_to_supervisor
from oban.cli.status import Status
from oban.cli.supervisor import Supervisor
from oban.cli.systemd import Systemd
from oban.cli.watch import Watcher
from oban.config import check_name
from oban.errors import ConfigError

if TYPE_CHECKING:
    from oban.cli.settings import Settings

logger = logging.getLogger("oban")

#: The settings of the command line that nodes get from their supervisor, besides the options of `Oban`.
_OF_CHILDREN = ("import", "log_level", "log_format")


@click.command()
@setting_options.with_target
@setting_options.add()
@click.option(
    "--watch",
    is_flag=True,
    help="Restart the node when a Python file in the current directory changes, for development. Needs"
    " oban-sqlalchemy[watch].",
)
# The file descriptor of the socket to the supervisor that started this process.
@click.option("--supervisor", type=int, hidden=True)
# The names of all of the supervisor's nodes, for the banner of the first one; empty if there is only one.
@click.option("--announced", hidden=True)
# Whether the node reports its health to the supervisor.
@click.option("--reports", is_flag=True, hidden=True)
# Where the node serves its metrics to the supervisor.
@click.option("--metrics-socket", hidden=True)
# The folder of the supervisor's configuration file. Its nodes get the settings, and do not read it again.
@click.option("--folder", hidden=True)
def start(
    config: str | None,
    watch: bool,
    supervisor: int | None,
    announced: str | None,
    reports: bool,
    metrics_socket: str | None,
    folder: str | None,
    **options: Any,
) -> None:
    """Run jobs until SIGTERM, SIGHUP or Ctrl-C. A second SIGTERM or Ctrl-C stops waiting for running jobs.

    TARGET is the application's own Oban, or a function that returns it, as MODULE:ATTRIBUTE, such as
    app.jobs:oban. It knows its database and all its options. --queues, --node, --lease and
    --shutdown-grace-period override them. --app is the same. Without it, a database URL is required.
    """
    stop_signals.exit_on_signals()
    forks.guard()
    used = setting_options.arguments(options)
    has_supervisor = supervisor is not None
    try:
        settings = setting_options.load(used, config, search=not has_supervisor)
    except ConfigError:
        with Console(used.get("log_level", "info"), used.get("log_format", "text"), "").errors():
            raise
    values, app = settings.values, settings.app
    if app is None and not values.get("database_url"):
        raise click.UsageError(
            f"Missing option '--database-url', or a TARGET such as app.jobs:oban.{settings.hint()}"
        )
    chosen = settings.overrides if app else {"queues": {"default": QueueOptions()}, **settings.options}
    node = chosen.get("node", socket.gethostname())
    processes = values.get("processes", 1)
    # The log lines of several nodes go to the same place.
    has_children = (processes > 1 or watch) and not has_supervisor
    level, kind = values.get("log_level", "info"), values.get("log_format", "text")
    console = Console(level, kind, node, prefix=has_children or has_supervisor)
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
        # Nodes inherit NOTIFY_SOCKET from their supervisor, and only the supervisor may use it.
        status = Status(None if has_supervisor else Systemd.find())
        metrics = None if has_supervisor else MetricsServer.find(values)
        if not has_supervisor:
            _warn(settings, app)
            status.serve(values)
        if metrics:
            metrics.serve(status)
            status.on_client = metrics.show_node
        elif metrics_socket:
            status.on_client = partial(serve_to_supervisor, metrics_socket)
        if has_children:
            names = [f"{node}-{number}" for number in range(1, processes + 1)] if processes > 1 else [node]
            _supervise(settings, app, names, watch, chosen, status, metrics)
        sys.path[:0] = list(dict.fromkeys([*([folder] if folder else []), *settings.folders]))
        for module in values.get("import", ()):
            targets.import_module(module, f"{_label(settings, 'import')} {module}")
        instance = _instance(targets.load(app) if app else None, values.get("database_url"), chosen)
        console.apply()
        # Imported modules live as long as the process: spare garbage collections the scan of them.
        gc.collect()
        gc.freeze()
        nodes.run(instance, link, console, status, announced, reports)


def _warn(settings: "Settings", app: str | None) -> None:
    from oban.cli.settings import similar_variables

    for name, near in similar_variables():
        logger.warning("%s is not a setting%s", name, near)
    # `oban install` uses the URL and the prefix. The environment may be meant for other commands, too.
    unused = [
        f"{key} ({origin})"
        for key, origin in settings.unused.items()
        if origin.kind == "file" and key not in ("database_url", "prefix")
    ]
    if unused:
        logger.warning("%s has options of its own, so these have no effect: %s", app, ", ".join(unused))


def _label(settings: "Settings", key: str) -> str:
    origin = settings.origins[key]
    return f"{origin}: {key}" if origin.kind == "file" else str(origin)


async def _instance(target: Coroutine[Any, Any, Oban] | None, url: Any, chosen: dict[str, Any]) -> Oban:
    if target is None:
        return Oban(url, **chosen)
    oban = await target
    queues = oban.options.queues or {"default": QueueOptions()}
    oban.options = oban.options.replace(**{"queues": queues, **chosen})
    oban.telemetry.rename(oban.options.node)
    return oban


def _supervise(
    settings: "Settings",
    app: str | None,
    names: list[str],
    watch: bool,
    chosen: dict[str, Any],
    status: Status,
    metrics: MetricsServer | None,
) -> NoReturn:
    url = settings.values.get("database_url")
    environment = {**os.environ}
    if app is None:
        # Report wrong options once, here, rather than from each process. This does not connect.
        Oban(url or "", **{**chosen, "node": names[-1]})
        for name in [name for name in environment if name.upper() == "OBAN_APP"]:
            del environment[name]
    passed = {key: value for key, value in settings.values.items() if key in chosen or key in _OF_CHILDREN}
    if app is None:
        passed["database_url"] = url
    arguments, variables = setting_options.passed(passed)
    environment |= variables
    if app:
        arguments.insert(0, app)
    if settings.file:
        arguments += ["--folder", str(settings.file.path.parent)]

    if status.is_watched:
        arguments.append("--reports")

    nodes_metrics = NodesMetrics(names) if metrics else None
    if metrics and nodes_metrics:
        metrics.show_nodes(nodes_metrics)

    # The first node prints the banner for all of them, when it is started for the first time.
    banner = iter(["--announced", f"{names[0]} to {names[-1]}"])

    def command(name: str, link: int) -> list[str]:
        start = [sys.executable, "-m", "oban", "start", *arguments, "--supervisor", str(link)]
        if nodes_metrics:
            start += ["--metrics-socket", nodes_metrics.path(name)]
        if not watch:
            return [*start, "--node", name, *banner]
        # TARGET can have a name for its node. The workers and queues may be others after each change.
        return [*start, *(["--node", name] if "node" in chosen else []), "--announced", ""]

    grace = chosen.get("shutdown_grace_period", setting_options.DEFAULTS.shutdown_grace_period)
    code = 0
    # Closing the loop would give the signals their default actions again.
    with asyncio.Runner() as runner:
        try:
            if watch:
                watcher = Watcher(command, names[0], environment, grace)
                status.check, watcher.on_stop = watcher.check, status.stop
                runner.run(watcher.run())
            else:
                supervisor = Supervisor(command, names, environment, grace)
                status.check, supervisor.on_stop = supervisor.check, status.stop
                code = runner.run(supervisor.run())
        finally:
            if nodes_metrics:
                nodes_metrics.remove()
        stop_signals.exit_with(code)
