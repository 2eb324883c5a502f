"""What `oban start` prints first: what runs here, and what is probably missing."""

import logging
from collections.abc import Collection, Mapping
from typing import Any

import click

import oban as package
from oban import Oban, dialects
from oban.error_texts import log_safe
from oban.registry import registry

logger = logging.getLogger("oban")

#: How many workers a line names.
SHOWN = 8


def show(oban: Oban, nodes: str, *, as_record: bool) -> None:
    """Print the version, the database, the queues and the workers of a node, and warn about mistakes.

    Args:
        oban: The instance of the node, not started yet.
        nodes: The names of all nodes that begin with the same command.
        as_record: Whether to log everything as fields of one record, instead of lines of text on stderr.
    """
    queues = {name: queue.limit for name, queue in oban.options.queues.items()}
    workers = registry.queues()
    if logger.isEnabledFor(logging.INFO):
        database = dialects.redacted(oban.engine.url)
        if as_record:
            fields: dict[str, Any] = {"database": database, "prefix": oban.options.prefix, "queues": queues}
            fields |= {"version": package.__version__, "node": nodes}
            fields |= {"workers": _first(workers), "worker_count": len(workers)}
            logger.info("oban %s", package.__version__, extra=fields)
        else:
            schema = f", schema {oban.options.prefix}" if oban.options.prefix else ""
            limits = ", ".join(
                f"{name}:{queue.limit}{' (paused)' if queue.paused else ''}"
                for name, queue in oban.options.queues.items()
            )
            click.echo(
                f"oban {package.__version__}\n"
                f"  node      {nodes}, instance {oban.options.name}\n"
                f"  database  {database}{schema}\n"
                f"  queues    {limits}\n"
                f"  workers   {_listed(workers) or 'none'}",
                err=True,
            )
    _warn(queues, workers)


def _warn(queues: Mapping[str, int], workers: Mapping[str, str]) -> None:
    if not workers:
        logger.warning(
            "no worker is known, so every job will fail: name the module that defines your workers with"
            " --import MODULE, or run your application's own instance with oban start MODULE:INSTANCE"
        )
    idle = {name: queue for name, queue in workers.items() if queue not in queues}
    if idle:
        missing = sorted(set(idle.values()))
        logger.warning(
            "this node does not run the queue%s %s of the worker%s %s: add --queues %s, unless another node"
            " does",
            "s"[: len(missing) != 1],
            _listed(missing),
            "s"[: len(idle) != 1],
            _listed(idle),
            ",".join(f"{queue}:10" for queue in missing[:SHOWN]),
        )


def _listed(names: Collection[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(_first(names)) + (f" and {more:,} more" if more > 0 else "")


def _first(names: Collection[str]) -> list[str]:
    return [log_safe(name) for name in sorted(names)[:SHOWN]]
