"""What a node tells about itself in its heartbeats."""

import os
import platform
import sys
from typing import Any

from oban import clock
from oban.notifier import Notifier
from oban.registry import registry

#: A node with more workers does not list them: each heartbeat of each of its queues would carry the list.
MAX_WORKERS = 500


def node_facts(notifier: Notifier) -> dict[str, Any]:
    """The part of `oban_producers.meta` that all producers of a node share. Called from another thread."""
    facts: dict[str, Any] = {
        "clock": clock.now().isoformat(),
        "listener": {"kind": notifier.kind, "hears": notifier.hears},
        # An import would be a cycle: the package imports its modules when their names are used.
        "version": sys.modules["oban"].__version__,
        "python": platform.python_version(),
        "pid": os.getpid(),
    }
    if len(workers := sorted(registry)) <= MAX_WORKERS:
        facts["workers"] = workers
    return facts
