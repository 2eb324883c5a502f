"""`Progress`: how far an attempt of a job has come, as `job.progress(…)` reports it."""

import math
import numbers
import operator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from oban import display, encoding, error_texts
from oban.errors import InvalidJob

#: The longest message, in characters.
MAX_MESSAGE = 500
#: JSON numbers beyond this are not the same in every program.
_MAX_NUMBER = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an attempt of a job has come.

    Attributes:
        done: How much is done, in a unit of the worker's own.
        total: How much there is to do, or None if the worker does not know. It can be less than `done` if it
            was an estimate.
        message: What the worker does now, in its own words, or None.
        attempt: The number of the attempt that reported this.
        at: When the attempt reported it, in UTC.
    """

    done: float
    total: float | None
    message: str | None
    attempt: int
    at: datetime

    @property
    def fraction(self) -> float | None:
        """The part that is done, from 0.0 to 1.0; None if the total is unknown or 0."""
        return min(1.0, self.done / self.total) if self.total else None

    def __str__(self) -> str:
        """How far the attempt has come, such as `3 of 10 (30%): reading`."""
        shown = f"{self.done:,}" if self.total is None else f"{self.done:,} of {self.total:,}"
        if self.fraction is not None:
            shown += f" ({self.fraction:.0%})"
        return f"{shown}: {self.message}" if self.message else shown

    @classmethod
    def parse(cls, stored: object) -> "Progress | None":
        """The progress that `document` has stored; None for anything else, which other programs can store."""
        if not isinstance(stored, dict):
            return None
        match stored:
            case {"attempt": int(attempt), "at": str(at)}:
                try:
                    done, total, message = check(
                        stored.get("done"), stored.get("total"), stored.get("message")
                    )
                    moment = datetime.fromisoformat(at)
                except ValueError:
                    return None
                moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
                return cls(done=done, total=total, message=message, attempt=attempt, at=moment)
        return None

    def as_dict(self) -> dict[str, Any]:
        """The JSON object that is stored in `meta["progress"]` and with the attempt."""
        return {
            "attempt": self.attempt,
            "done": self.done,
            "total": self.total,
            "message": self.message,
            "at": self.at.isoformat(),
        }

    def document(self) -> str:
        """The same as JSON text."""
        return encoding.dumps(self.as_dict())


def check(done: Any, total: Any, message: Any) -> tuple[float, float | None, str | None]:
    """The arguments of `job.progress`, checked. A longer message is cut, and one that is blank becomes None.

    Raises `InvalidJob` for a wrong value.
    """
    # Most calls have these types.
    if type(done) is not int or not 0 <= done <= _MAX_NUMBER:
        done = _number("done", done)
    if total is not None and (type(total) is not int or not 0 <= total <= _MAX_NUMBER):
        total = _number("total", total)
    return done, total, None if message is None else _message(message)


def _number(name: str, value: Any) -> float:
    number: float | None = None
    if not isinstance(value, bool):
        # Numbers of other libraries, such as NumPy's, are none of Python's own types.
        try:
            number = operator.index(value)
        except TypeError:
            if isinstance(value, numbers.Real):
                number = float(value)
    if number is None:
        raise InvalidJob(f"progress: {name}", f"must be a number, not {display.shown(value)}")
    if not math.isfinite(number):
        raise InvalidJob(f"progress: {name}", f"must be finite, not {number}")
    if not 0 <= number <= _MAX_NUMBER:
        raise InvalidJob(
            f"progress: {name}", f"must not be negative or more than 2**63 - 1: {display.shown(value)}"
        )
    return number


def _message(value: Any) -> str | None:
    if not isinstance(value, str):
        raise InvalidJob("progress: message", f"must be a string, not {display.shown(value)}")
    text = str.__str__(value)
    if len(text) > MAX_MESSAGE:
        text = f"{text[: MAX_MESSAGE - 1]}…"
    # Six bytes of JSON for a character are the most.
    return error_texts.sanitize(text, 6 * MAX_MESSAGE + 2) if text.strip() else None
