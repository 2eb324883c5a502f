"""Workers in the main module, which Python runs as `__main__`: their names, and a warning about scripts."""

import atexit
import logging
import sys

from oban import clock, instances

logger = logging.getLogger("oban")

MAIN = "__main__"
#: A child process runs the main module of its parent under the second name.
_NAMES = (MAIN, "__mp_main__")
#: Seconds that a script has, after its first job, to start an `Oban` that runs its jobs.
PATIENCE = 10.0

#: By the name of a worker in a script, when it created its first job. The warning removes it.
_first_jobs: dict[str, float] = {}


def import_name(module: str) -> str:
    """Return the name by which other processes can import a module.

    It is `app.workers` for a main module that was run with `python -m app.workers`, and `__main__` for a
    script, or code in an interactive session, which no other process can import.
    """
    if module not in _NAMES:
        return module
    spec = getattr(sys.modules.get(module), "__spec__", None)
    # `python -m asyncio` is an interactive session that has the name of its own module.
    return MAIN if spec is None or spec.name in _NAMES or hasattr(sys, "ps1") else str(spec.name)


def job_created(worker: str) -> bool:
    """Warn that no other process can find a worker of a script, unless this process runs jobs itself.

    The warning appears once for each worker: `PATIENCE` seconds after its first job, when it creates another
    one, or when Python ends.

    Returns:
        Whether to call this for the worker's next job.
    """
    if not _first_jobs:
        atexit.register(_warn_at_exit)
    now = clock.monotonic()
    if now - _first_jobs.setdefault(worker, now) < PATIENCE:
        return True
    _warn(worker)
    return False


def _warn_at_exit() -> None:
    for worker in [*_first_jobs]:
        _warn(worker)


def _warn(worker: str) -> None:
    # Another thread can have warned about it just now.
    _first_jobs.pop(worker, None)
    if not instances.async_clients.have_run:
        logger.warning(
            "the worker %s is defined in a script, so its name is different in a process that imports the"
            " module, and its jobs fail there; run the script with `python -m`, or set the worker's option"
            " name",
            worker,
        )
