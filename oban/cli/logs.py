"""The log of `oban start`, which the application's own logging configuration neither silences nor doubles."""

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click
from pythonjsonlogger.json import JsonFormatter

from oban.errors import ObanError

logger = logging.getLogger("oban")

#: With "app", the handlers of the application write the records.
FORMATS = ("text", "json", "app")
LEVELS = ("debug", "info", "warning", "error")

_FIELDS = "%(levelname)s %(name)s %(message)s %(process)d"
_NAMES = {"levelname": "level", "name": "logger", "exc_info": "exception", "stack_info": "stack"}


class Console:
    """Writes the records of Oban's loggers to stderr.

    `apply` puts that in place. Call it again after code of the application has run, because that may have
    configured logging. The root logger's level and handlers remain the application's. Its handlers for files
    and services also get Oban's records; its handlers for the terminal do not, which would show them twice.
    With the format "app", all its handlers get them, and they are written here only if there is no handler.

    Args:
        level: The least level of Oban's records, one of `LEVELS`.
        kind: One of `FORMATS`.
        node: The name of the node, the field `node` of each record in JSON.
        prefix: Whether each line of text names the node.
    """

    def __init__(self, level: str, kind: str, node: str, *, prefix: bool = False) -> None:
        self.is_text = kind == "text"
        self._is_own = kind != "app"
        self._level = level.upper()
        self._handler = _Handler(sys.stderr)
        self._handler.setFormatter(json_formatter(node) if kind == "json" else _text(node if prefix else ""))

    def apply(self) -> None:
        """Configure Oban's loggers, and the records that no logger has a handler for."""
        loggers = [logger, *_below(logger)]
        for each in loggers:
            # dictConfig and fileConfig disable every logger that they do not name.
            each.disabled = False
        logger.setLevel(self._level)
        # A handler on the root logger would turn a later basicConfig() of the application into a no-op.
        logging.lastResort = self._handler
        if not self._is_own:
            return
        logger.addHandler(self._handler)
        forwarding = [logging.root, logger, *(each for each in loggers if each.propagate)]
        for handler in _to_terminal(handler for each in forwarding for handler in each.handlers):
            if handler is not self._handler:
                handler.addFilter(_is_foreign)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Log the cause of an error that ends the command at DEBUG, and unless the log is text, the error.

        Raises:
            SystemExit: There was an error, and it has been logged.
        """
        try:
            yield
        except click.ClickException:
            raise
        except Exception as error:
            # The application may have disabled the loggers just before it failed.
            self.apply()
            if error.__cause__:
                logger.debug("the cause of the error", exc_info=error.__cause__)
            if self.is_text:
                raise
            expected = isinstance(error, ObanError)
            logger.critical("%s", error, exc_info=None if expected else error)
            sys.exit(1)


class _Handler(logging.StreamHandler[Any]):
    """Lets a record be lost where a job has closed stderr, instead of raising an error in the node."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        with suppress(Exception):
            super().handleError(record)


def _text(origin: str) -> logging.Formatter:
    origin = f"{origin}  ".replace("%", "%%") if origin else ""
    return logging.Formatter(f"%(asctime)s %(levelname)-7s {origin}%(name)s  %(message)s")


def json_formatter(node: str) -> logging.Formatter:
    """The format of `--log-format json`."""
    return JsonFormatter(_FIELDS, rename_fields=_NAMES, timestamp=True, defaults={"node": node})


def _below(top: logging.Logger) -> list[logging.Logger]:
    known = logging.root.manager.loggerDict.items()
    prefix = f"{top.name}."
    return [each for name, each in known if name.startswith(prefix) and isinstance(each, logging.Logger)]


def _to_terminal(handlers: Iterable[logging.Handler]) -> Iterator[logging.Handler]:
    """The handlers that write to stdout or stderr, also behind a queue."""
    for handler in handlers:
        # A `QueueHandler` that `dictConfig` made knows its listener.
        listener: Any = getattr(handler, "listener", None)
        if listener is not None:
            yield from _to_terminal(listener.handlers)
        # The handler of rich has a console instead of a stream.
        stream = getattr(handler, "stream", None) or getattr(getattr(handler, "console", None), "file", None)
        if stream is not None and stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            yield handler


def _is_foreign(record: logging.LogRecord) -> bool:
    return record.name != "oban" and not record.name.startswith("oban.")
