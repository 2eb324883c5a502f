"""`oban config`: the settings in effect, and where each comes from."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import click
from sqlalchemy import URL

from oban import Oban, dialects, durations
from oban.cli import options as setting_options
from oban.cli import output, web
from oban.cli.columns import Column
from oban.cli.instance import Instance
from oban.cli.remote.address import Address
from oban.config import Options, QueueOptions, Retention

if TYPE_CHECKING:
    from oban.cli.settings import Settings

_COLUMNS = (Column("SETTING"), Column("VALUE", least=10), Column("FROM", rank=1, least=16))
_FIELDS = Options.__dataclass_fields__
_DEFAULTS = {
    "processes": 1,
    "log_level": "info",
    "log_format": "text",
    "health_host": "127.0.0.1",
    "metrics_host": "127.0.0.1",
    "web_host": web.DEFAULTS["host"],
    "web_port": web.DEFAULTS["port"],
    "web_read_only": web.DEFAULTS["read_only"],
    "web_hide": [],
    "import": [],
}
#: What TOML allows as a key without quotes.
_BARE = re.compile(r"[A-Za-z0-9_-]+")
Source: TypeAlias = Literal["argument", "environment", "file", "app", "default"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigValue:
    """A setting, or a value in a table of settings."""

    #: Such as `lease` or `retention.completed`.
    key: str
    #: Periods are seconds. URLs are without passwords.
    value: str | float | int | bool | list[str] | None
    source: Source
    #: Such as `--lease`, `OBAN_LEASE`, `oban.toml, line 3` or `app.jobs:oban`; None for a default.
    place: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What `oban config --json` prints."""

    #: The configuration file.
    file: str | None
    values: tuple[ConfigValue, ...]
    #: Sentences about settings that have no effect.
    warnings: tuple[str, ...]


@click.command()
@setting_options.with_target
@setting_options.add()
@output.json_option
def config(config: str | None, as_json: bool, **options: Any) -> None:
    """Show the settings in effect, and where each comes from.

    They are those of `oban start` with the same arguments. Passwords are not shown. With TARGET, which is the
    same as --app, or the setting app, the options of that Oban are shown.
    """
    found = _config(setting_options.load(setting_options.arguments(options), config))
    if as_json:
        output.document(Config, found)
    else:
        output.table(_COLUMNS, [(each.key, _text(each), each.place or each.source) for each in found.values])
    for warning in found.warnings:
        click.echo(f"Warning: {warning}", err=True)


def _config(settings: "Settings") -> Config:
    from oban.cli.setting_types import OVERRIDES, TYPES
    from oban.cli.settings import similar_variables

    app, values = settings.app, dict(settings.values)
    if app:
        options, values["database_url"] = Instance.of(settings, remote=False).call(_of_app)
        queues = options.queues or {"default": QueueOptions()}
        options = options.replace(**{"queues": queues, **settings.overrides})
    else:
        options = Options.make(**{"queues": {"default": 10}, **settings.options})
    effective = {**_DEFAULTS, **values, **{key: getattr(options, key) for key in TYPES if key in _FIELDS}}
    found = []
    for path, value in _parts({key: effective.get(key) for key in TYPES}):
        key = path[0]
        of_app = app if key == "database_url" or key in _FIELDS else None
        kind: Source = "app" if of_app else "default"
        place = of_app
        if key in settings.origins and _is_set(settings.values, path) and (not of_app or key in OVERRIDES):
            origin = settings.origins[key]
            kind, place = origin.kind, str(replace(origin, path=path))
        found.append(ConfigValue(key=_joined(path), value=value, source=kind, place=place))
    warnings = [f"{name} is not a setting{near}" for name, near in similar_variables()]
    if app:
        warnings += [
            f"{key} of {origin} is not used: {app} has its own." for key, origin in settings.unused.items()
        ]
    if settings.file and (other := settings.file.shadowed):
        warnings.append(f"[tool.oban] in {other} is not used, because there is {settings.file.name}.")
    return Config(
        file=settings.file.name if settings.file else None, values=tuple(found), warnings=tuple(warnings)
    )


async def _of_app(oban: Oban) -> tuple[Options, URL]:
    return oban.options, oban.engine.url


def _parts(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values that are no tables, with their paths, as JSON has them."""
    for key, value in values.items():
        if isinstance(value, QueueOptions | Retention):
            # The exceptions of a retention have neither exceptions nor a limit of their own.
            has_limit = isinstance(value, QueueOptions) or not path
            table = {each.name: getattr(value, each.name) for each in fields(value)}
            value = {name: each for name, each in table.items() if has_limit or name != "limit"}
        if isinstance(value, Mapping):
            yield from _parts(value, (*path, key))
        elif key == "url" and value is not None:
            yield (*path, key), Address.of(value).url
        elif key in ("database_url", "listen_url") and value is not None:
            yield (*path, key), dialects.shown(value)
        else:
            yield (*path, key), value


def _is_set(values: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        # A limit can stand for a queue.
        if not isinstance(values, Mapping):
            return True
        if key not in values:
            return False
        values = values[key]
    return True


def _joined(path: tuple[str, ...]) -> str:
    return ".".join(key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False) for key in path)


def _text(value: ConfigValue) -> str:
    """A value as a configuration file can have it, or "-" if nothing is set."""
    if value.value is None:
        return "forever" if value.key.startswith("retention.") else "-"
    if isinstance(value.value, bool):
        return "true" if value.value else "false"
    if isinstance(value.value, float):
        return durations.written(value.value)
    return ", ".join(value.value) or "-" if isinstance(value.value, list) else str(value.value)
