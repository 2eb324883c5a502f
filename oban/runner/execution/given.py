"""What `process` gets beside the job."""

from typing import Any

from oban.errors import InvalidJob
from oban.models import Job
from oban.runner.execution.outcome import AttemptFailed
from oban.worker import Worker


def given(worker: Worker[Any], job: Job) -> dict[str, Any]:
    """The arguments by name, as `worker.takes` says. Raises `Failure` if the args do not fit their type."""
    if "args" not in worker.takes:
        return {}
    try:
        return {"args": worker.args_of(job)}
    except InvalidJob as error:
        raise AttemptFailed(f"InvalidJob: {error}") from None
