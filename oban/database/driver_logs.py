"""Keeps the values of jobs out of the records that SQLAlchemy and aiosqlite log at the level DEBUG."""

import logging
from functools import partial
from typing import Any

from oban import compat

#: The name under which SQLAlchemy logs the statements of engines that Oban makes.
LOGGING_NAME = compat.FollowingEngine.log_name


class _Rows(logging.Filter):
    """Leaves out the records about rows of results. `hide_parameters` only hides parameters."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "Row %r" not in str(record.msg)


class _Parameters(logging.Filter):
    """Shows calls of aiosqlite without parameters, if they are about Oban's tables or its own connections."""

    def filter(self, record: logging.LogRecord) -> bool:
        match record.args:
            case (partial() as call, *others) if call.args and _is_own(call):
                record.args = (partial(call.func, call.args[0]), *others)
        return True


def _is_own(call: partial[Any]) -> bool:
    caller = getattr(call.func, "__self__", None)
    connection = getattr(caller, "connection", caller)
    return "oban_" in str(call.args[0]) or type(connection).__module__.startswith("oban.")


_rows, _parameters = _Rows(), _Parameters()


def hide_values() -> None:
    """Add the filters, unless they are there."""
    logging.getLogger(f"sqlalchemy.engine.Engine.{LOGGING_NAME}").addFilter(_rows)
    logging.getLogger("aiosqlite").addFilter(_parameters)
