"""Helpers for the tests of applications with jobs.

They run the real code on the test's database. Those that use a client are awaited with an `Oban`, and return
their value at once with a `SyncOban`.
"""

import importlib

# As in `typing`, whose import is not needed otherwise.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from oban.testing.drain import drain_queue
    from oban.testing.enqueued import all_enqueued, assert_enqueued, refute_enqueued
    from oban.testing.modes import mode
    from oban.testing.periodic_jobs import insert_periodic_jobs
    from oban.testing.process import process_job
    from oban.testing.reset import reset_oban
    from oban.testing.rollback import rolled_back
    from oban.testing.time_travel import travel

__all__ = [
    "all_enqueued",
    "assert_enqueued",
    "drain_queue",
    "insert_periodic_jobs",
    "mode",
    "process_job",
    "refute_enqueued",
    "reset_oban",
    "rolled_back",
    "travel",
]

#: Where the public names are. Each is imported when it is first used, because pytest imports the plugin of
#: this package also for tests that have nothing to do with jobs.
_MODULES = {
    "drain": ["drain_queue"],
    "enqueued": ["all_enqueued", "assert_enqueued", "refute_enqueued"],
    "modes": ["mode"],
    "periodic_jobs": ["insert_periodic_jobs"],
    "process": ["process_job"],
    "reset": ["reset_oban"],
    "rollback": ["rolled_back"],
    "time_travel": ["travel"],
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# Type checkers would believe that a module with this function has every attribute.
if not TYPE_CHECKING:

    def __getattr__(name):
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(_MODULE_OF[name]), name)
        return value
