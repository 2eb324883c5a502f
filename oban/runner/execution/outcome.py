"""How a run ended, as JSON values that can be stored, or sent by a child process."""

from typing import Any

from oban import encoding
from oban.errors import InvalidJob
from oban.models import Job
from oban.outcomes import Cancel, Record, Snooze
from oban.worker import Worker

#: The fields of an `Ack` that do not identify the run.
Outcome = dict[str, Any]


class AttemptFailed(Exception):
    """An attempt failed for a known reason: `text` is stored in `errors`, without a traceback."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = encoding.sanitize(text)


def process_arguments(worker: Worker[Any], job: Job) -> dict[str, Any]:
    """What `process` takes in addition to the job and a session.

    Raises `AttemptFailed` if the job's args do not fit the declared type.
    """
    if "args" not in worker.takes:
        return {}
    try:
        return {"args": worker.args_of(job)}
    except InvalidJob as error:
        raise AttemptFailed(f"InvalidJob: {error}") from None


def from_result(result: object) -> Outcome:
    """The outcome of a run whose `process` returned `result`. Raises what reading the value raises."""
    match result:
        case Cancel():
            return {"outcome": "cancelled", "error": _reason(result.reason)}
        case Snooze():
            return {"outcome": "snoozed", "delay": result.delay}
        case Record():
            # `Record` has checked the value, but the worker can have changed a list or dict in it since.
            value = encoding.json_value(result.value, "Record")
            return {"outcome": "completed", "value": encoding.dumps(value)}
        case _:
            return {"outcome": "completed"}


def from_error(error: BaseException) -> Outcome:
    """The outcome of a run whose `process` raised `error`. Never raises."""
    # isinstance() would read the exception's `__class__`, which can raise.
    text = error.text if type(error) is AttemptFailed else encoding.error_text(error)
    return {"outcome": "failed", "error": text}


def _reason(reason: object) -> str:
    try:
        return encoding.sanitize(str(reason))
    except BaseException:
        return "cancelled by its worker; the reason could not be printed"
