"""The tests of the fast path run on every database, and are skipped if the fast path is turned off."""

from oban.database.fast import FAST_PATH
from tests.support.fixtures import factory, server_url

__all__ = ["factory", "server_url"]

collect_ignore_glob = [] if FAST_PATH.parts else ["test_*.py"]
