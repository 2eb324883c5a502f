"""Durations as people write them: in arguments, in files and in the environment."""

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])\s*", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


def parse(text: str) -> float:
    """The seconds of a duration such as `90s`, `1.5h` or `1d12h`. A number without a unit is one of seconds.

    Raises:
        ValueError: The text is not a duration.
    """
    text = text.strip().lower()
    if is_number(text):
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


def is_number(text: str) -> bool:
    """Whether a duration is a number without a unit."""
    return _NUMBER.fullmatch(text.strip()) is not None
