"""`oban metrics`: the files for Grafana and Prometheus that come with the package."""

from importlib import resources

import click


@click.group()
def metrics() -> None:
    """Print the files for Grafana and Prometheus."""


@metrics.command()
def dashboard() -> None:
    """Print a dashboard for Grafana, to import there."""
    _print("grafana.json")


@metrics.command()
def alerts() -> None:
    """Print alerting rules for Prometheus. docs/guides/alerts.md explains each."""
    _print("alerts.yaml")


def _print(name: str) -> None:
    # The package itself would import prometheus-client, which need not be installed here.
    click.echo((resources.files("oban") / "prometheus" / name).read_text("utf-8"), nl=False)
