"""The id of the request that log records belong to, in the web server and in the jobs that it enqueued."""

import logging
from contextvars import ContextVar
from typing import Any

#: The id of the request that is served, or that enqueued the job that runs.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def add_request_id() -> None:
    """Give every log record the attribute `request_id`, which formatters can show."""
    previous = logging.getLogRecordFactory()

    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = previous(*args, **kwargs)
        record.request_id = request_id.get()
        return record

    logging.setLogRecordFactory(make)
