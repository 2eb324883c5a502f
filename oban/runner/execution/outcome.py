"""How a run ended: turns what `process` returned or raised into an outcome that can be stored."""

from typing import Any

from oban import encoding
from oban.errors import InvalidJob
from oban.models import Job
from oban.outcomes import Cancel, Record, Snooze
from oban.worker import Worker

#: The fields of an `Ack` that do not identify the run.
Outcome = dict[str, Any]


class AttemptFailed(Exception):
    """An attempt failed for a known reason, so that its stored error needs no traceback.

    Args:
        error: The reason.
        before: What `errors` has before the reason.
    """

    def __init__(self, error: Exception, before: str = "") -> None:
        super().__init__(str(error))
        self.error = error
        #: What is stored in `errors`.
        self.text = encoding.sanitize(f"{before}{type(error).__name__}: {error}")


class RemoteTraceback(Exception):
    """The cause of an exception from a child process: `text` is the traceback there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}\n"""'


class RemoteError(Exception):
    """Takes the place of an exception from a child process that cannot be made again in the node."""


def process_arguments(worker: Worker[Any], job: Job) -> dict[str, Any]:
    """What `process` takes in addition to the job and a session.

    Raises `AttemptFailed` if the job's args do not fit the declared type.
    """
    if "args" not in worker.takes:
        return {}
    try:
        return {"args": worker.args_of(job)}
    except InvalidJob as error:
        raise AttemptFailed(error) from None


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
    return {"outcome": "failed", "error": _text(error)}


def _text(error: BaseException) -> str:
    # isinstance() would read the exception's `__class__`, which can raise.
    if type(error) is AttemptFailed:
        return error.text
    # So would an attribute that the class has replaced.
    cause = BaseException.__dict__["__cause__"].__get__(error)
    return cause.text if type(cause) is RemoteTraceback else encoding.error_text(error)


def _reason(reason: object) -> str:
    try:
        return encoding.sanitize(str(reason))
    except BaseException:
        return "cancelled by its worker; the reason could not be printed"
