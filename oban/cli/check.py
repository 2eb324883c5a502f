"""`oban check`."""

import functools
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

from oban.cli import output
from oban.cli.documents import DOCUMENTS
from oban.cli.instance import Instance, of_instance
from oban.cli.options import with_target
from oban.diagnosis.health import CODES
from oban.diagnosis.health_findings import Finding, Health, Severity, Thresholds
from oban.errors import ObanError

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

#: As monitoring plugins end.
EXIT_CODES: dict[Severity, int] = {"ok": 0, "warning": 1, "critical": 2, "unknown": 3}
_STYLES: dict[Severity, str] = {"ok": "green", "warning": "yellow", "critical": "red", "unknown": "magenta"}
_DEFAULTS = Thresholds()
_ABOUT = {
    "oldest_job": ("SECONDS", "the oldest available job of a queue has waited for this long"),
    "clock_skew": ("SECONDS", "the clocks of a node and the database differ by this much"),
    "transaction": ("SECONDS", "a transaction is open for this long (PostgreSQL)"),
    "dead_rows": ("NUMBER", "a table has this many dead rows, and a fifth of all or more (PostgreSQL)"),
    "free_space": ("MEGABYTES", "this much of the file is free, and half of it or more (SQLite)"),
}


class _Check(click.Command):
    """Ends with the exit code 3 where other commands end with 1 or 2, which are for warnings and problems."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        make = functools.partial(super().make_context, info_name, args, parent, **extra)
        return _or_unknown(make, as_json="--json" in args)

    def invoke(self, ctx: click.Context) -> Any:
        return _or_unknown(functools.partial(super().invoke, ctx), as_json=ctx.params["as_json"])


def _or_unknown(function: Callable[[], T], *, as_json: bool) -> T:
    try:
        return function()
    except (click.ClickException, ObanError) as error:
        reason = error.format_message() if isinstance(error, click.ClickException) else str(error)
    except (click.exceptions.Exit, click.Abort):
        raise
    # Python would end with the code 1, which is a warning to monitors.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    finding = Finding("configuration", "unknown", reason, "Correct the options or the configuration.")
    _print(Health("", "unknown", (finding,)), as_json=as_json, verbose=False)
    raise click.exceptions.Exit(EXIT_CODES["unknown"])


def _threshold_options(function: F) -> F:
    """Add an option for each threshold. The command gets them as `thresholds`."""

    @functools.wraps(function)
    def command(**options: Any) -> Any:
        chosen = {field.name: options.pop(field.name) for field in fields(Thresholds)}
        return function(thresholds=Thresholds(**chosen), **options)

    decorated: Any = command
    for field in reversed(fields(Thresholds)):
        name, _, severity = field.name.rpartition("_")
        unit, about = _ABOUT[name]
        default = getattr(_DEFAULTS, field.name)
        verb = "Warn" if severity == "warning" else "Critical"
        decorated = click.option(
            f"--{field.name.replace('_', '-')}",
            type=float,
            default=default,
            metavar=unit,
            help=f"{verb} if {about}.  [default: {default:,.0f}]",
        )(decorated)
    return decorated  # type: ignore[no-any-return]


@click.command(cls=_Check)
@with_target
@of_instance
@_threshold_options
@click.option(
    "--skip",
    multiple=True,
    type=click.Choice(CODES[1:]),
    metavar="CHECK",
    help="Leave a check out, such as bloat. Can be repeated.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="The time for all checks.",
)
@click.option("--verbose", is_flag=True, help="Also list the checks that have found no problem.")
@output.json_option
def check(
    instance: Instance,
    thresholds: Thresholds,
    skip: tuple[str, ...],
    timeout: float,
    verbose: bool,
    as_json: bool,
) -> None:
    """Check the database, nodes and queues, also for monitors.

    The first line sums up. The exit code is that of monitoring plugins: 0 ok, 1 warning, 2 critical, also if
    the database cannot be reached, and 3 unknown, also if the options or the configuration are wrong.
    TARGET is the same as --app.
    """
    health = instance.operate(
        lambda operations: operations.health(thresholds, skip, timeout), needs_file=False
    )
    _print(health, as_json=as_json, verbose=verbose)
    raise click.exceptions.Exit(EXIT_CODES[health.severity])


def _print(health: Health, *, as_json: bool, verbose: bool) -> None:
    if as_json:
        output.document(DOCUMENTS["check"], health)
        return
    output.paragraph(_summary(health), style=f"bold {_STYLES[health.severity]}")
    problems = health.problems
    if len(problems) == 1 and not verbose:
        # The summary is its text.
        if (advice := problems[0].advice) is not None:
            output.paragraph(advice, indent=2)
        return
    fine = [finding for finding in health.findings if finding.severity == "ok"] if verbose else []
    for finding in (*problems, *fine):
        if finding.severity != "ok" or finding is fine[0]:
            click.echo()
        text = f"{finding.severity} {finding.code}: {finding.text}"
        output.paragraph(text, style=_STYLES[finding.severity])
        if finding.advice is not None:
            output.paragraph(finding.advice, indent=2)


def _summary(health: Health) -> str:
    """The line that monitors show."""
    severity = health.severity.upper()
    if not (problems := health.problems):
        checks = len({finding.code for finding in health.findings})
        return f"{severity}: {checks} checks of the instance {health.instance} have found no problem."
    # A vertical bar would begin the performance data of a monitoring plugin.
    text = re.sub(r"[\s|]+", " ", problems[0].text)
    more = len(problems) - 1
    return f"{severity}: {text}" + (f" ({more} more)" if more else "")
