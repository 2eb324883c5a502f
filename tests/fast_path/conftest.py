"""Tests of the fast path itself, on every database; without it, there is nothing to test."""

from oban.database.fast import FAST_PATH
from tests.support.fixtures import factory, server_url

__all__ = ["factory", "server_url"]

collect_ignore_glob = [] if FAST_PATH.parts else ["test_*.py"]
