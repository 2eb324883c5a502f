"""Consumes jobs: the services that fetch, run, acknowledge, stage and watch. Builds no SQL."""

from oban.runner.node import Node
from oban.runner.runner import Runner

__all__ = ["Node", "Runner"]
