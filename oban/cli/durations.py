"""Durations as people write them: in arguments, in files and in the environment."""

import re
from datetime import timedelta
from typing import Any

import click

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])\s*", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


def parse(text: str) -> float:
    """The seconds of a duration such as `90s`, `1.5h` or `1d12h`. A number without a unit is one of seconds.

    Raises:
        ValueError: The text is not a duration.
    """
    text = text.strip().lower()
    if _NUMBER.fullmatch(text):
        return float(text)
    if not re.fullmatch(f"(?:{_PART.pattern})+", text, re.ASCII):
        raise ValueError("must be a number of seconds, or a period such as 90s, 15m, 6h or 7d")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def written(seconds: float) -> str:
    """A duration as `parse` reads it, in the largest unit that makes a whole number: `90s`, `15m`, `7d`."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:g}{unit}"
    return f"{seconds:g}s"


class Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A duration such as 90s, 2h or 1d12h, as a timedelta.

    Args:
        seconds: Whether a number without a unit is allowed, and means seconds.
    """

    name = "duration"

    def __init__(self, *, seconds: bool = False) -> None:
        self._seconds = seconds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        try:
            if not self._seconds and _NUMBER.fullmatch(value.strip()):
                raise ValueError
            return timedelta(seconds=parse(value))
        except ValueError:
            self.fail(f"{value!r} is not a duration such as 90s, 15m, 2h, 7d or 1w.", param, ctx)
        except OverflowError:
            self.fail(f"{value!r} is too long.", param, ctx)
