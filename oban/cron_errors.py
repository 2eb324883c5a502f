"""Checks cron expressions, and says what is wrong with one and what to write instead."""

from collections.abc import Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import NamedTuple

from cronsim import CronSim, CronSimError

from oban import display
from oban.errors import ConfigError

#: Sixty numbers in each list are shorter.
MAX_LENGTH = 1000
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
#: A year with a 29 February, from whose start every date of the calendar comes within 40 years.
_START = datetime(2000, 1, 1)  # noqa: DTZ001 - by a clock without time zones


class _Field(NamedTuple):
    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 7, _DAYS),
)
_ORDER = "minute, hour, day of the month, month and day of the week"


def check_text(expression: object) -> str:
    """Return an expression that is a string of a sensible length; raises `ConfigError` for anything else."""
    if not isinstance(expression, str):
        raise ConfigError(
            f"a cron expression is a string such as '0 3 * * *', not {display.shown(expression)}"
        )
    if len(expression) > MAX_LENGTH:
        raise ConfigError(
            f"the cron expression {display.shown(expression, 40)} is longer than {MAX_LENGTH} characters"
        )
    return expression


def check_fields(expression: str, shortcuts: Sequence[str]) -> None:
    """Raise `ConfigError` unless the expression has five valid fields and is ever due."""
    parts = expression.split()
    shown = display.shown(expression)
    if parts and parts[0].startswith("@"):
        raise ConfigError(f"{shown} is not a cron shortcut; {_shortcut(expression.strip(), shortcuts)}")
    if len(parts) != len(_FIELDS):
        raise ConfigError(f"the cron expression {shown} {_number(parts)}")
    for index, part in enumerate(parts):
        alone = ["*"] * len(_FIELDS)
        alone[index] = part
        if not _is_valid(" ".join(alone)):
            field = _FIELDS[index]
            raise ConfigError(
                f"the cron expression {shown} has an invalid {field.name}: {_problem(part, field, parts)}"
            )
    if not _is_due(expression):
        raise ConfigError(
            f"the cron expression {shown} is never due: no day of the month {parts[2]} in the months"
            f" {parts[3]} is on a day of the week {parts[4]}"
        )


def _is_valid(expression: str) -> bool:
    try:
        CronSim(expression, _START)
    # cronsim asserts, converts and compares without checks of its own in some corners.
    except (CronSimError, ValueError, TypeError, AssertionError):
        return False
    return True


def _is_due(expression: str) -> bool:
    try:
        return next(iter(CronSim(expression, _START)), None) is not None
    except CronSimError:
        return False


def _shortcut(text: str, shortcuts: Sequence[str]) -> str:
    if text.lower().startswith("@every"):
        return "write '*/5 * * * *' for every five minutes"
    near = get_close_matches(text[:50].lower(), shortcuts, 1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(shortcuts)}"


def _number(parts: list[str]) -> str:
    """What is wrong with an expression that does not have five parts."""
    needs = f"an expression has five: {_ORDER}"
    if len(parts) in (6, 7):
        without = next((rest for rest in (parts[1:6], parts[:5]) if _is_valid(" ".join(rest))), None)
        advice = f": write '{' '.join(without)}'" if without else ""
        return f"has {len(parts)} fields, but {needs}. There are none for seconds, years and commands{advice}"
    number = f"has {len(parts)} field{'' if len(parts) == 1 else 's'}" if parts else "is empty"
    return (
        f"{number}, but {needs}; write '0 3 * * *' for every day at 3:00, or '*/5 * * * *' for every five"
        " minutes"
    )


def _problem(part: str, field: _Field, parts: list[str]) -> str:
    for item in part.split(","):
        if problem := _item_problem(item, field):
            return problem
    return f"{display.shown(part)} is not understood; {_examples(field)}"


def _item_problem(item: str, field: _Field) -> str | None:
    """What is wrong with one item of a list; None if nothing is."""
    alone = ["*"] * len(_FIELDS)
    alone[_FIELDS.index(field)] = item
    if _is_valid(" ".join(alone)):
        return None
    if not item:
        return "a list has an empty item; write '1,2' for two values"
    if "?" in item:
        return f"{display.shown(item)} is not supported; write '*' for any {field.name}"
    values, slash, step = item.partition("/")
    if slash and not (step.isascii() and step.isdigit() and int(step[:9]) > 0):
        return f"the step in {display.shown(item)} is not a number from 1; write '*/2' for every second one"
    first, dash, last = values.partition("-")
    ends = [first, last] if dash else [first]
    for end in ends:
        if problem := _value_problem(end, field):
            return problem
    if dash:
        low, high = (_number_of(end, field) for end in ends)
        if low > high:
            most = field.most - 1 if field.names == _DAYS else field.most
            wrapped = f"{first}-{most},{field.least}-{last}"
            if field.names == _DAYS and high == 0:
                wrapped = f"{low}-7"
            return f"the range {display.shown(values)} ends before it begins; write '{wrapped}'"
    return None


def _value_problem(value: str, field: _Field) -> str | None:
    if not value:
        return f"a range has two ends, and a step a beginning; {_examples(field)}"
    if value.upper() in field.names:
        return None
    bounds = f"between {field.least} and {field.most}"
    if value.isascii() and value.isdigit():
        if len(value) < 9 and field.least <= int(value) <= field.most:
            return None
        return f"{display.shown(value, 20)} is not {bounds}"
    if near := get_close_matches(value[:3].upper(), field.names, 1):
        return f"{display.shown(value, 20)} is not a name; did you mean {near[0]}?"
    return f"{display.shown(value, 20)} is not {bounds}; {_examples(field)}"


def _number_of(value: str, field: _Field) -> int:
    return field.names.index(value.upper()) + field.least if value.upper() in field.names else int(value)


def _examples(field: _Field) -> str:
    names = f", names such as {field.names[1]}" if field.names else ""
    return f"a {field.name} has numbers{names}, ranges such as 1-5, steps such as */2, and lists such as 1,3"
