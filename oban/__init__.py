"""A SQLAlchemy-native job queue that lives in your application's own database.

PYTEST_DONT_REWRITE
"""

# The last line of the docstring is for programs that import this package and then run pytest. Without
# it, pytest warns that it cannot rewrite the assertions of a package with a plugin.

import importlib
import importlib.util
import sys
from types import ModuleType

# As in `typing`, whose import is not needed otherwise.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from oban import filters
    from oban.client import Oban
    from oban.config import QueueOptions, Retention
    from oban.diagnosis.explanation import Explanation, Reason
    from oban.diagnosis.health_findings import Finding, Health, Thresholds
    from oban.errors import InvalidJob, JobNotFound, ObanError, UniqueConflict
    from oban.fields import JobUpdate
    from oban.job_function import job
    from oban.middleware import CallNext, Middleware
    from oban.models import Job
    from oban.outcomes import Cancel, Discard, Record, Snooze
    from oban.periodic import Periodic, PeriodicInfo
    from oban.progress import Progress
    from oban.repository.cluster import QueueInfo
    from oban.repository.nodes import NodeInfo
    from oban.repository.queue_settings import QueueSettings
    from oban.repository.retry import RetryOutcome
    from oban.repository.stats import Stats
    from oban.resources import Resource, injected
    from oban.runner.node_check import NodeCheck
    from oban.running_job import current_job
    from oban.sync_client import SyncOban
    from oban.types import JobState
    from oban.unique import Unique, UniqueOptions
    from oban.worker import Worker
    from oban.worker_decorator import worker

__version__ = "0.1.0"

__all__ = [
    "CallNext",
    "Cancel",
    "Discard",
    "Explanation",
    "Finding",
    "Health",
    "InvalidJob",
    "Job",
    "JobNotFound",
    "JobState",
    "JobUpdate",
    "Middleware",
    "NodeCheck",
    "NodeInfo",
    "Oban",
    "ObanError",
    "Periodic",
    "PeriodicInfo",
    "Progress",
    "QueueInfo",
    "QueueOptions",
    "QueueSettings",
    "Reason",
    "Record",
    "Resource",
    "Retention",
    "RetryOutcome",
    "Snooze",
    "Stats",
    "SyncOban",
    "Thresholds",
    "Unique",
    "UniqueConflict",
    "UniqueOptions",
    "Worker",
    "current_job",
    "filters",
    "injected",
    "job",
    "worker",
]

#: Where the public names are. Each is imported when it is first used, because SQLAlchemy takes half a second,
#: and `oban start` has to handle signals before that.
_MODULES = {
    "client": ["Oban"],
    "config": ["QueueOptions", "Retention"],
    "diagnosis.explanation": ["Explanation", "Reason"],
    "errors": ["InvalidJob", "JobNotFound", "ObanError", "UniqueConflict"],
    "fields": ["JobUpdate"],
    "job_function": ["job"],
    "middleware": ["CallNext", "Middleware"],
    "models": ["Job"],
    "outcomes": ["Cancel", "Discard", "Record", "Snooze"],
    "periodic": ["Periodic", "PeriodicInfo"],
    "progress": ["Progress"],
    "repository.cluster": ["QueueInfo"],
    "diagnosis.health_findings": ["Finding", "Health", "Thresholds"],
    "repository.nodes": ["NodeInfo"],
    "repository.queue_settings": ["QueueSettings"],
    "repository.retry": ["RetryOutcome"],
    "repository.stats": ["Stats"],
    "resources": ["Resource", "injected"],
    "runner.node_check": ["NodeCheck"],
    "running_job": ["current_job"],
    "sync_client": ["SyncOban"],
    "types": ["JobState"],
    "unique": ["Unique", "UniqueOptions"],
    "worker": ["Worker"],
    "worker_decorator": ["worker"],
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}


def _load(name: str) -> "Any":
    """Import a public name, or a module of the package, which callers can use without importing it."""
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps the decorator `worker` apart from the module `oban.worker`, whose import sets that attribute."""

    @property
    def worker(self) -> "Any":
        return _load("worker")

    @worker.setter
    def worker(self, _: ModuleType) -> None:
        pass


sys.modules[__name__].__class__ = _Package

# Type checkers would believe that a module with this function has every attribute.
if not TYPE_CHECKING:

    def __getattr__(name):
        value = globals()[name] = _load(name)
        return value
