"""The ids and filters of `oban jobs`, as a `Choice`."""

import functools
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import click

from oban.cli.durations import Duration
from oban.documents.choice import Choice, Filters, InvalidFilter, decoded
from oban.repository.selection import MAX_ID
from oban.types import STATES

F = TypeVar("F", bound=Callable[..., Any])

#: By option: the filter that it sets.
_OPTIONS = {
    "states": "state",
    "queues": "queue",
    "workers": "worker",
    "tags": "tag",
    "args_at": "args",
    "meta_at": "meta",
    "older_than": "older_than",
    "newer_than": "newer_than",
    "priorities": "priority",
    "node": "node",
}

#: The ids of jobs. Larger numbers than the column can have are ids of no job.


class _Id(click.IntRange):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and ":" in value:
            self.fail(f"{value!r} is not an id. An application is named with --app.", param, ctx)
        return super().convert(value, param, ctx)


ID = _Id(min=1, max=MAX_ID)


def filtered(function: F) -> F:
    """Add the options that filter jobs. The command gets them as `choice`, a `Choice`."""

    @functools.wraps(function)
    def command(**options: Any) -> Any:
        choice = _choice({option: options.pop(option) for option in _OPTIONS})
        return function(choice=choice, **options)

    decorated: F = _with_options(command)
    return decorated


def targeted(function: F) -> F:
    """Add ids, the options that filter jobs, and `--all`. The command gets them as `choice`, a `Choice`."""

    @functools.wraps(function)
    def command(ids: tuple[int, ...], everything: bool, **options: Any) -> Any:
        choice = _choice({option: options.pop(option) for option in _OPTIONS}, ids=ids, everything=everything)
        if everything and (ids or choice.conditions):
            raise click.UsageError("--all means every job: leave it out, or leave out ids and filters.")
        if not (ids or choice.conditions or everything):
            raise click.UsageError(
                "No jobs are chosen: pass ids, or filters such as --state or --queue, or --all for every job."
            )
        return function(choice=choice, **options)

    decorated: Any = click.option("--all", "everything", is_flag=True, help="Every job of the database.")(
        command
    )
    decorated = _with_options(decorated)
    return click.argument("ids", metavar="[ID]...", type=ID, nargs=-1)(decorated)  # type: ignore[no-any-return]


def _with_options(function: Any) -> Any:
    path = "PATH=VALUE"
    for option in reversed(
        (
            click.option(
                "--state",
                "states",
                type=click.Choice(STATES, case_sensitive=False),
                metavar="STATE",
                multiple=True,
                help=f"Jobs in this state: {', '.join(STATES)}. Repeat it for several.",
            ),
            click.option(
                "--queue",
                "queues",
                metavar="NAME",
                multiple=True,
                help="Jobs of this queue, or of any of several.",
            ),
            click.option(
                "--worker",
                "workers",
                metavar="NAME",
                multiple=True,
                help="Jobs of this worker, or of any of several.",
            ),
            click.option(
                "--tag",
                "tags",
                metavar="TAG",
                multiple=True,
                help="Jobs with this tag, or with all of several.",
            ),
            click.option(
                "--args",
                "args_at",
                metavar=path,
                multiple=True,
                help="Jobs with this value in their args, such as customer.id=7; or a JSON object that the"
                " args contain; or a path alone, where the args have any value.",
            ),
            click.option("--meta", "meta_at", metavar=path, multiple=True, help="The same for their meta."),
            click.option(
                "--older-than",
                metavar="DURATION",
                type=Duration(),
                help="Jobs that were inserted longer ago: 90s, 15m, 2h, 7d, 1w.",
            ),
            click.option(
                "--newer-than",
                metavar="DURATION",
                type=Duration(),
                help="Jobs that were inserted since then.",
            ),
            click.option(
                "--priority",
                "priorities",
                metavar="NUMBER",
                type=click.IntRange(0, 9),
                multiple=True,
                help="Jobs of this priority, 0 to 9, or of any of several.",
            ),
            click.option("--node", metavar="NAME", help="Jobs whose last attempt was on this node."),
        )
    ):
        function = option(function)
    return function


def _choice(options: Mapping[str, Any], **chosen: Any) -> Choice:
    filters: Any = {
        filter_: _filter_value(options[option])
        for option, filter_ in _OPTIONS.items()
        if options[option] not in (None, ())
    }
    found: Filters = filters
    try:
        return Choice.of(found, **chosen)
    except InvalidFilter as error:
        raise click.UsageError(f"--{error.filter.replace('_', '-')}: {error.problem}.") from error


def _filter_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value.total_seconds() if isinstance(value, timedelta) else value


def json_object(option: str, text: str) -> dict[str, Any]:
    """The JSON object that an option has as its value; raises `click.UsageError`."""
    value = decoded(text)
    if not isinstance(value, dict):
        raise click.UsageError(
            f"{option}: {text[:60]!r} is not a JSON object, such as {json.dumps({'id': 7})}."
        )
    return value
