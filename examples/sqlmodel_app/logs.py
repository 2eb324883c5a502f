"""The id of the request that log records belong to, in the web server and in the jobs that it enqueued."""

import logging
from contextvars import ContextVar
from typing import Any

from oban import CallNext, Job

#: The id of the request that is served, or that enqueued the job that runs.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def configure() -> None:
    """Give every log record the field `request_id`, and log the application's own records from INFO."""
    logging.getLogger(__package__).setLevel(logging.INFO)
    previous = logging.getLogRecordFactory()

    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = previous(*args, **kwargs)
        record.request_id = request_id.get()
        return record

    logging.setLogRecordFactory(make)


async def restore_request_id(job: Job, call_next: CallNext) -> Any:
    """Middleware: what a job logs has the id of the request that enqueued it, also that it has failed."""
    # Not reset at the end, because each attempt has a context of its own, in which Oban logs how it ended.
    request_id.set(job.meta.get("request_id"))
    return await call_next(job)
