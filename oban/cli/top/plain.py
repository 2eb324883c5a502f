"""The tables of `oban top --once`."""

from typing import Any

import click

from oban.cli import output
from oban.cli.top.headers import summary
from oban.cli.top.snapshot import Snapshot
from oban.cli.top.tables import KINDS, Kind


def print_snapshot(snapshot: Snapshot) -> None:
    """Print a snapshot as text."""
    click.echo(f"{snapshot.instance}  {snapshot.database}  {output.time(snapshot.at)} UTC")
    click.echo(", ".join(part.plain for part in summary(snapshot)))
    for kind in KINDS:
        click.echo()
        _print(kind, snapshot)


def _print(kind: Kind[Any], snapshot: Snapshot) -> None:
    rows = sorted(kind.rows(snapshot), key=kind.sorts[0].key)
    output.table(kind.columns, map(kind.cells, rows))
    if not rows:
        click.echo(kind.empty)
