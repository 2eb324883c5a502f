"""The options of a worker about its periodic jobs."""

from collections.abc import MutableMapping
from copy import deepcopy
from typing import Any, NamedTuple

from oban import fields, periodic
from oban.errors import ConfigError

#: The options besides `cron`, which need it.
_FURTHER = ("timezone", "catch_up", "window", "cron_name", "args")


class CronOptions(NamedTuple):
    """When a worker's periodic jobs are due, and their args. Without `name`, the worker's name is used."""

    name: str | None
    #: `expression`, `timezone`, `catch_up` and `window`, as `Periodic` takes them.
    timing: dict[str, Any]
    args: Any


def pop(options: MutableMapping[str, Any]) -> CronOptions | None:
    """Remove the options about periodic jobs from those of a worker, and check them. None without `cron`.

    Raises `ConfigError` for a wrong value, and for one of the options without `cron`.
    """
    expression = options.pop("cron", None)
    further = {option: options.pop(option) for option in _FURTHER if options.get(option) is not None}
    for option in _FURTHER:
        # Those that are None.
        options.pop(option, None)
    if expression is None:
        for option in further:
            raise ConfigError(f"unknown option {option!r} without cron: it is about periodic jobs")
        return None
    name, args = further.pop("cron_name", None), further.pop("args", None)
    if name is not None:
        periodic.check_name(name)
    return CronOptions(name, periodic.check_timing({"expression": expression, **further}), args)


def check_args(cls: Any) -> None:
    """Raise `InvalidJob` if the args of a worker's periodic jobs do not fit the worker."""
    if cls._cron is not None:
        stored_args(cls, cls._cron.args)


def stored_args(cls: Any, args: Any) -> dict[str, Any]:
    """Args of a worker's jobs as they are stored; raises `InvalidJob`."""
    if cls._arguments is not None:
        dumped: dict[str, Any] = cls._arguments.dump(args, cls.worker_name)
        return dumped
    return {} if args is None else fields.args(args)


def job_fields(cls: Any) -> dict[str, Any]:
    """The fields of a worker's periodic jobs."""
    return {**deepcopy({**cls._defaults}), "args": stored_args(cls, cls._cron.args)}
