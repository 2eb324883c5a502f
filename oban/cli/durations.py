"""The type of options that are durations."""

from datetime import timedelta
from typing import Any

import click

from oban import durations


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
            if not self._seconds and durations.is_number(value):
                raise ValueError
            return timedelta(seconds=durations.parse(value))
        except ValueError:
            self.fail(f"{value!r} is not a duration such as 90s, 15m, 2h, 7d or 1w.", param, ctx)
        except OverflowError:
            self.fail(f"{value!r} is too long.", param, ctx)
