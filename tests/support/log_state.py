"""The state of `logging`, which commands set up for the process that they take for their own."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def logging_restored() -> Iterator[None]:
    """Restore levels and handlers afterwards."""
    root, *loggers = (logging.getLogger(name) for name in ("", "oban", "oban.executor"))
    levels = [(logger, logger.level, logger.propagate) for logger in (root, *loggers)]
    handlers = [(logger, logger.handlers[:]) for logger in loggers]
    last_resort = logging.lastResort
    try:
        yield
    finally:
        logging.lastResort = last_resort
        for logger, level, propagate in levels:
            logger.setLevel(level)
            logger.propagate = propagate
        for known in logging.root.manager.loggerDict.values():
            if isinstance(known, logging.Logger):
                known.disabled = False
        for logger, before in handlers:
            logger.handlers[:] = before
        for handler in root.handlers[:]:
            if not type(handler).__module__.startswith("_pytest"):
                root.removeHandler(handler)
