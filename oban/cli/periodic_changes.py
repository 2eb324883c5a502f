"""`oban periodic add`, `update`, `reset` and `delete`."""

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from oban import redacted
from oban.cli import output
from oban.cli.documents import DOCUMENTS
from oban.cli.instance import Instance, of_instance
from oban.cli.periodic import periodic
from oban.error_texts import log_safe
from oban.periodic import CATCH_UP, CatchUp, PeriodicInfo

F = TypeVar("F", bound=Callable[..., Any])


def _parse_object(_: click.Context, __: click.Parameter, text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"it is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise click.BadParameter('it must be a JSON object, such as {"id": 7}')
    return value


def _parse_catch_up(_: click.Context, __: click.Parameter, text: str | None) -> CatchUp | None:
    # Periodic checks the value.
    return int(text) if text and text.isascii() and text.isdigit() else text  # type: ignore[return-value]


def _fields(function: F) -> F:
    """Add the options about an entry and its jobs. The command gets those in use as `changes`."""

    @functools.wraps(function)
    def command(**options: Any) -> Any:
        changes = {name: value for name in _NAMES if (value := options.pop(name)) not in (None, ())}
        if "tags" in changes:
            changes["tags"] = [*changes["tags"]]
        return function(changes=changes, **options)

    decorated: Any = command
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


_NAMES = (
    *("timezone", "catch_up", "window"),
    *("args", "queue", "priority", "max_attempts", "tags", "meta"),
)
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--timezone", metavar="ZONE", help="The zone of the expression, such as Europe/Berlin."),
    click.option(
        "--catch-up",
        metavar=f"{'|'.join(CATCH_UP)}|N",
        callback=_parse_catch_up,
        help="Which times that passed while no node ran are made up for.",
    ),
    click.option("--window", type=float, metavar="SECONDS", help="How long ago such a time can be."),
    click.option("--args", metavar="JSON", callback=_parse_object, help="The args of the jobs, as JSON."),
    click.option("--queue", metavar="NAME", help="The queue of the jobs."),
    click.option("--priority", type=int, help="The priority of the jobs, from 0 (first) to 9."),
    click.option("--max-attempts", type=int, help="How many times each job can start."),
    click.option("--tag", "tags", multiple=True, help="A tag of the jobs. Can be repeated."),
    click.option("--meta", metavar="JSON", callback=_parse_object, help="The meta of the jobs, as JSON."),
)


@periodic.command()
@click.argument("entry")
@click.argument("expression")
@click.argument("worker")
@_fields
@of_instance
@output.json_option
def add(
    entry: str, expression: str, worker: str, changes: dict[str, Any], instance: Instance, as_json: bool
) -> None:
    """Add ENTRY, jobs of WORKER at the times of EXPRESSION.

    EXPRESSION is a cron expression, such as "0 3 * * *", and WORKER the name of a worker, such as
    app.workers.Report. ENTRY survives restarts, and needs no code that declares it. An entry of this name
    that was added before is replaced.
    """
    options = {"worker": worker, **changes}
    info = instance.operate(lambda operations: operations.add_periodic(entry, expression, options))
    _report("add", info, "was added", as_json)


@periodic.command()
@click.argument("entry")
@click.option("--expression", help="The cron expression.")
@_fields
@of_instance
@output.json_option
def update(
    entry: str, expression: str | None, changes: dict[str, Any], instance: Instance, as_json: bool
) -> None:
    """Change ENTRY until it is reset.

    The changes hold whatever the code of the nodes declares meanwhile.
    """
    if expression is not None:
        changes["expression"] = expression
    if not changes:
        raise click.UsageError("Nothing to update: pass one of the options, such as --expression.")
    info = instance.operate(lambda operations: operations.change_periodic("update", entry, changes))
    _report("update", info, "was changed", as_json)


@periodic.command()
@click.argument("entry")
@of_instance
@output.json_option
def reset(entry: str, instance: Instance, as_json: bool) -> None:
    """Take back all changes of `oban periodic update` to ENTRY."""
    info = instance.operate(lambda operations: operations.change_periodic("reset", entry))
    _report("reset", info, "is as it was declared", as_json)


@periodic.command()
@click.argument("entry")
@of_instance
@output.json_option
def delete(entry: str, instance: Instance, as_json: bool) -> None:
    """Delete ENTRY, if no code declares it. Jobs that it has inserted stay.

    With --json, print what was deleted.
    """
    info = instance.operate(lambda operations: operations.change_periodic("delete", entry))
    if as_json:
        output.document(DOCUMENTS["periodic delete"], redacted.periodic(info))
    else:
        click.echo(f"{log_safe(entry)} was deleted.")


def _report(verb: str, info: PeriodicInfo, done: str, as_json: bool) -> None:
    if as_json:
        output.document(DOCUMENTS[f"periodic {verb}"], redacted.periodic(info))
        return
    following = "It is paused." if info.paused else f"Its next time is {output.time(info.next_at)} UTC."
    click.echo(f"{log_safe(info.name)} {done}. {following}")
