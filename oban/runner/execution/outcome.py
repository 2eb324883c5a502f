"""How an attempt ended, as JSON values that can be stored, or sent by one process to another."""

from typing import Any

from oban import encoding
from oban.outcomes import Cancel, Record, Snooze

#: What an `Ack` says besides whose attempt it was.
Ending = dict[str, Any]


class AttemptFailed(Exception):
    """A failed attempt whose reason is known: `text` goes into `errors` without a traceback of ours."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = encoding.sanitize(text)


def from_result(result: object) -> Ending:
    """The ending of a job that returned `result`. Raises what the value raises when it is looked at."""
    match result:
        case Cancel():
            return {"outcome": "cancelled", "error": _reason(result.reason)}
        case Snooze():
            return {"outcome": "snoozed", "delay": result.delay}
        case Record():
            # Checked when it was made, but lists and dicts can be changed in place.
            value = encoding.json_value(result.value, "Record")
            return {"outcome": "completed", "value": encoding.dumps(value)}
        case _:
            return {"outcome": "completed"}


def from_error(error: BaseException) -> Ending:
    """The ending of a job that raised `error`. Never raises."""
    # Not isinstance(), which asks the exception, and that may answer with an exception.
    text = error.text if type(error) is AttemptFailed else encoding.error_text(error)
    return {"outcome": "failed", "error": text}


def _reason(reason: object) -> str:
    try:
        return encoding.sanitize(str(reason))
    except BaseException:
        return "cancelled by its worker; the reason could not be printed"
