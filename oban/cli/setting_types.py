"""The settings of commands: their types, and how periods, queues and retentions are written."""

from dataclasses import fields
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BeforeValidator

from oban import display, durations
from oban.cli.logs import FORMATS, LEVELS
from oban.cli.options import parse_queues
from oban.config import Options
from oban.errors import ConfigError

#: The options that override those of the application's own `Oban`. It has made its engine with all others.
OVERRIDES = ("queues", "node", "lease", "shutdown_grace_period")
#: Options of `Oban` that are Python objects.
IN_CODE = ("session", "middleware", "lifespan", "periodic")
#: The periods of a retention, which can also be the word "forever", and its tables of exceptions.
_PERIODS, _EXCEPTIONS = ("completed", "cancelled", "discarded"), ("queues", "workers")
_FOREVER = "forever"


def _parse_period(value: Any) -> Any:
    return durations.parse(value) if isinstance(value, str) else value


def _parse_queues(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_queues(value)
    except ValueError:
        raise ValueError("must be names and limits, such as default:10,media:2, each name once") from None


def _split(value: Any) -> Any:
    return [item.strip() for item in value.split(",")] if isinstance(value, str) else value


def _types() -> dict[str, Any]:
    """The type of each setting: of those of the command line itself, and of the options of `Oban`."""
    one_of: Any = Literal
    types: dict[str, Any] = {
        "app": str,
        "database_url": str,
        "import": Annotated[list[str], BeforeValidator(_split)],
        "processes": int,
        "log_level": one_of[LEVELS],
        "log_format": one_of[FORMATS],
        "health_port": int,
        "health_host": str,
        "metrics_port": int,
        "metrics_host": str,
        "web_host": str,
        "web_port": int,
        "web_password_file": str,
        "web_authorize": str,
        "web_read_only": bool,
        "web_hide": Annotated[list[str], BeforeValidator(_split)],
        "web_root_path": str,
        "url": str,
        "url_token_file": str,
    }
    seconds = Annotated[float, BeforeValidator(_parse_period)]
    # `Options` checks what is in these tables.
    special = {
        "queues": Annotated[dict[str, Any], BeforeValidator(_parse_queues)],
        "retention": dict[str, Any],
    }
    hints = get_type_hints(Options)
    for option in fields(Options):
        if option.init and option.name not in IN_CODE:
            hint = hints[option.name]
            types[option.name] = special.get(option.name, seconds if hint in (float, float | None) else hint)
    return types


TYPES = _types()
OPTIONS = tuple(option.name for option in fields(Options) if option.name in TYPES)


def parse_retention(values: Any, path: str = "retention") -> Any:
    """The periods of a retention, and of its exceptions, as numbers, and "forever" as None."""
    if not isinstance(values, dict):
        return values
    parsed = {}
    for key, value in values.items():
        if key in _PERIODS:
            try:
                parsed[key] = None if value == _FOREVER else _parse_period(value)
            except ValueError as error:
                reason = f"{path}: {key} {error}, or {_FOREVER}, not {display.shown(value)}"
                raise ConfigError(reason) from None
        elif key in _EXCEPTIONS and isinstance(value, dict):
            parsed[key] = {
                name: parse_retention(each, f"{path}: {key}: {name}") for name, each in value.items()
            }
        else:
            parsed[key] = value
    return parsed
