"""`current_job`: the job that is being processed in this context."""

from contextvars import ContextVar

from oban.models import Job

#: Set while a node, a thread or a child process runs an attempt.
running: ContextVar[Job | None] = ContextVar("oban.running", default=None)


def current_job() -> Job | None:
    """Return the job that is being processed in this context, or None outside of one.

    It works in async code, threads and child processes.

    Returns:
        The job that `process` was called with, or None.

    Example:
        `current_job().log.info("half done")`
    """
    return running.get()
