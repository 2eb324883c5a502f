"""Reads the fields of the forms about a job. What cannot be read is a problem, by the name of its field."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from oban import display, durations, encoding
from oban.error_texts import log_safe
from oban.errors import InvalidJob

#: How many characters of a line are quoted around a mistake in it.
_QUOTED = 30
#: The first word of a field in an error of the library, such as `args["a"]`.
_FIELD = re.compile(r"\w+")
#: The fields of forms that have another name than the library's.
_NAMES = {"schedule_in": "in", "scheduled_in": "in", "scheduled_at": "at"}


class Form:
    """The fields of a form that was sent.

    Args:
        data: The names and values.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data
        #: What is wrong with a field, by its name.
        self.problems: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        """Whether the form was sent with a field of this name."""
        return name in self._data

    def raw(self, name: str) -> str:
        """The text of a field as it was sent; empty without one."""
        value = self._data.get(name, "")
        # Browsers send line breaks as CRLF.
        return value.replace("\r\n", "\n") if isinstance(value, str) else ""

    def text(self, name: str) -> str | None:
        """The text of a field without spaces around it; None if it is empty."""
        return self.raw(name).strip() or None

    def integer(self, name: str) -> int | None:
        """The whole number in a field; None if it is empty."""
        if (text := self.text(name)) is None:
            return None
        if re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
            return int(text)
        self.problems[name] = f"must be a whole number, not {display.shown(text, 40)}"
        return None

    def duration(self, name: str) -> float | None:
        """The seconds of a period such as `15m`; None if the field is empty."""
        if (text := self.text(name)) is None:
            return None
        try:
            return durations.parse(text)
        except ValueError as error:
            self.problems[name] = str(error)
            return None

    def time(self, name: str) -> datetime | None:
        """A time, which is in UTC unless it names a zone; None if the field is empty."""
        if (text := self.text(name)) is None:
            return None
        try:
            found = datetime.fromisoformat(text)
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, OverflowError):
            self.problems[name] = "must be a time such as 2030-01-31 09:30"
            return None

    def tags(self, name: str) -> list[str]:
        """The tags in a field, one in each line."""
        return [line.strip() for line in self.raw(name).split("\n") if line.strip()]

    def json_object(self, name: str) -> dict[str, Any] | None:
        """The JSON object in a field, `{}` if it is empty; None with a problem."""
        text = self.raw(name)
        if not text.strip():
            return {}
        try:
            value = encoding.loads(text)
        except json.JSONDecodeError as error:
            self.problems[name] = _position(text, error)
            return None
        except (ValueError, RecursionError) as error:
            problem = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
            self.problems[name] = f"cannot be read: {problem}"
            return None
        if isinstance(value, dict):
            return value
        self.problems[name] = f'must be a JSON object, such as {{"id": 1}}, not {encoding.json_type(value)}'
        return None

    def refuse(self, error: InvalidJob, problem: str | None = None) -> None:
        """Note an error of the library at its field.

        Args:
            error: The error.
            problem: What it says about the field, if that must not have the values of the job.
        """
        found = _FIELD.match(error.field)
        field = "" if found is None else found[0]
        path = error.field[len(field) :]
        self.problems[_NAMES.get(field, field)] = f"{path} {problem or error.problem}".strip()


def _position(text: str, error: json.JSONDecodeError) -> str:
    """Where JSON is wrong, with the beginning of the line before and after the place."""
    lines = text.split("\n")
    line = lines[error.lineno - 1] if error.lineno <= len(lines) else ""
    column = error.colno - 1
    before, after = line[max(0, column - _QUOTED) : column], line[column : column + _QUOTED]
    near = f": {log_safe(before.lstrip(), 60)} ⟵ here {log_safe(after, 60)}".rstrip() if line.strip() else ""
    message = error.msg[:1].lower() + error.msg[1:]
    return f"is not JSON: {message} in line {error.lineno}, column {error.colno}{near}"
