"""The settings of commands: from arguments, the environment and a file, in this order of precedence.

Importing pydantic-settings takes a fifth of the time of a command, so commands import this module late.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

import click
from pydantic import Field, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from oban import dialects, display, suggestions
from oban.cli import config_file
from oban.cli.config_file import ConfigFile
from oban.cli.options import MAX_PORT, MAX_PROCESSES
from oban.cli.setting_types import IN_CODE, OPTIONS, OVERRIDES, TYPES, parse_retention
from oban.config import Options
from oban.errors import ConfigError

ENVIRONMENT = "OBAN_"
#: Variables that are no settings.
_OTHER_VARIABLES = ("OBAN_CONFIG", "OBAN_FAST_PATH", "OBAN_TEST_DATABASE_URL", "OBAN_URL_TOKEN")
_OF_OBAN = ("database_url", *OPTIONS)
#: Settings that a variable can contain as JSON.
_TABLES = ("queues", "retention")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a value comes from: an argument, a variable or a file."""

    kind: Literal["argument", "environment", "file"]
    #: The key, and those in its tables.
    path: tuple[str, ...]
    file: ConfigFile | None = None

    @property
    def line(self) -> int | None:
        return None if self.file is None else self.file.line(*self.path)

    def __str__(self) -> str:
        """The place, such as `--lease`, `OBAN_LEASE` or `oban.toml, line 3`."""
        if self.file is not None:
            return self.file.place(*self.path)
        return flag(self.path[0]) if self.kind == "argument" else variable(self.path[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings that are set somewhere, checked."""

    values: Mapping[str, Any]
    origins: Mapping[str, Origin]
    file: ConfigFile | None

    @property
    def app(self) -> str | None:
        """The application's own `Oban`, unless an argument names a database instead.

        The URL of the environment does not take precedence, because the application may read it itself.

        Raises:
            UsageError: An argument is an option that the application's own `Oban` has.
        """
        origins, app = self.origins, self.values.get("app")
        is_argument = {key for key, origin in origins.items() if origin.kind == "argument"}
        if app is None or ("database_url" in is_argument and "app" not in is_argument):
            return None
        for key in _OF_OBAN:
            if key in is_argument and key not in OVERRIDES:
                raise click.UsageError(
                    f"{flag(key)} cannot be combined with {app}: it is an option of that Oban."
                )
        return str(app)

    @property
    def url(self) -> str | None:
        """The address of a dashboard, unless an argument names a database or an application instead.

        Raises:
            UsageError: There is an argument for both, or one that chooses among instances of a database.
        """
        of_database = [key for key in ("app", "database_url", "prefix", "name") if self._is_argument(key)]
        if not of_database or "url" not in self.values:
            found: str | None = self.values.get("url")
            return found
        if self._is_argument("url") or not {"app", "database_url"} & {*of_database}:
            raise click.UsageError(
                f"{flag(of_database[0])} cannot be combined with {self.origins['url']}: the address of a"
                " dashboard has the instance in its path."
            )
        return None

    def _is_argument(self, key: str) -> bool:
        return key in self.origins and self.origins[key].kind == "argument"

    @property
    def overrides(self) -> dict[str, Any]:
        """The options that override those of the application's own `Oban`."""
        return {key: self.values[key] for key in OVERRIDES if key in self.values}

    @property
    def unused(self) -> dict[str, Origin]:
        """The settings without an effect, because the application's own `Oban` has options of its own."""
        if self.app is None:
            return {}
        return {key: self.origins[key] for key in self.values if key in _OF_OBAN and key not in OVERRIDES}

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of the application: that of the file, and the current one."""
        found = [] if self.file is None else [str(self.file.path.parent)]
        # The current folder can have been deleted.
        with suppress(FileNotFoundError):
            found.append(os.getcwd())
        return tuple(dict.fromkeys(found))

    def hint(self) -> str:
        """The end of an error about a missing setting: a missing file, and variables of similar names."""
        where = "" if self.file else " There is no oban.toml in this folder or above it."
        return where + "".join(f" {name} is not a setting{near}" for name, near in similar_variables())

    @property
    def options(self) -> dict[str, Any]:
        """Arguments for `Oban`, besides the URL."""
        return {key: self.values[key] for key in OPTIONS if key in self.values}


class _Environment(EnvSettingsSource):
    """Variables such as OBAN_LEASE. Those that are empty count as not set."""

    def prepare_field_value(
        self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool
    ) -> Any:
        # The base class would merge tables of several sources.
        if not isinstance(value, str) or field_name in self.current_state:
            return None
        try:
            if field_name in _TABLES and value.lstrip().startswith("{"):
                return json.loads(value)
            # "30" becomes a number here: the values of other sources have types, which the model requires.
            return TypeAdapter[Any](field.annotation or str).validate_python(value, strict=False)
        except ValueError:
            # The model describes the error.
            return value


class _File(InitSettingsSource):
    def __call__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__call__().items() if key not in self.current_state}


def load(arguments: Mapping[str, Any], config: str | None = None, *, search: bool = True) -> Settings:
    """Load the settings.

    Args:
        arguments: The values of the options that were used, by setting.
        config: The configuration file. If None, the variable OBAN_CONFIG names it, or it is searched for.
        search: Whether there can be a file at all.

    Raises:
        ConfigError: The file cannot be read, a key is unknown, or a value is wrong.
    """
    file = config_file.choose(config or os.environ.get("OBAN_CONFIG") or None) if search else None

    class Sources(BaseSettings):
        model_config = SettingsConfigDict(
            env_prefix=ENVIRONMENT, env_ignore_empty=True, extra="forbid", strict=True
        )

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            *_: Any,
            **__: Any,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            sources = (init_settings, _Environment(settings_cls))
            return (*sources, _File(settings_cls, dict(file.values))) if file else sources

    definitions: dict[str, Any] = {key: (type_ | None, None) for key, type_ in TYPES.items()}
    definitions["processes"] = (int | None, Field(default=None, ge=1, le=MAX_PROCESSES))
    for name in ("health_port", "metrics_port", "web_port"):
        definitions[name] = (int | None, Field(default=None, ge=0, le=MAX_PORT))
    model = create_model("Settings", __base__=Sources, **definitions)
    try:
        made: BaseSettings = model(**arguments)
    except ValidationError as error:
        found = [(_origin(each["loc"], arguments, file), each) for each in error.errors(include_url=False)]
        found.sort(key=lambda problem: problem[0].line or 0)
        raise ConfigError("\n".join(_problem(origin, each) for origin, each in found)) from None
    values = {key: getattr(made, key) for key in TYPES if getattr(made, key) is not None}
    origins = {key: _origin((key,), arguments, file) for key in values}
    _check(values, arguments, file)
    for key in ("database_url", "listen_url"):
        if file is not None and key in values and origins[key].kind == "file":
            values[key] = dialects.url_in(file.path.parent, values[key])
    if file is not None and "web_password_file" in values and origins["web_password_file"].kind == "file":
        values["web_password_file"] = str(file.path.parent / values["web_password_file"])
    if "retention" in values:
        values["retention"] = parse_retention(values["retention"])
    return Settings(values=values, origins=origins, file=file)


def similar_variables() -> list[tuple[str, str]]:
    """The variables that look like those of settings, each with the end of a sentence about it."""
    found = []
    for name in sorted(os.environ):
        key = name.removeprefix(ENVIRONMENT).lower()
        if name.startswith(ENVIRONMENT) and key not in TYPES and name not in _OTHER_VARIABLES:
            # Applications and their tests have such variables as well.
            near = get_close_matches(key[:100], TYPES, 1, 0.75)
            found += [(name, f"; did you mean {variable(similar)}?") for similar in near]
    return found


def variable(key: str) -> str:
    """The environment variable of a setting."""
    return f"{ENVIRONMENT}{key.upper()}"


def flag(key: str) -> str:
    """The option of a setting."""
    return f"--{key.replace('_', '-')}"


def _origin(path: tuple[int | str, ...], arguments: Mapping[str, Any], file: ConfigFile | None) -> Origin:
    keys = tuple(map(str, path))
    if keys[0] in arguments:
        return Origin(kind="argument", path=keys)
    names = {name.upper() for name, value in os.environ.items() if value}
    if keys[0] in TYPES and variable(keys[0]) in names:
        return Origin(kind="environment", path=keys)
    return Origin(kind="file", path=keys, file=file)


def _problem(origin: Origin, error: Any) -> str:
    """A sentence about an error of pydantic."""
    key = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        if key in IN_CODE:
            text = f"{key} takes Python objects, which a file cannot contain: set it in code, and use app"
        else:
            text = f"unknown option {display.shown(key)}{suggestions.suggestion(key, list(TYPES))}"
        return f"{origin}: {text}"
    cause = error.get("ctx", {}).get("error")
    path = ".".join(map(str, error["loc"]))
    text = (
        f"{path} {cause}" if cause else error["msg"].replace("Input", path, 1).replace("dictionary", "table")
    )
    # A URL can contain a password.
    value = "" if key.endswith("url") else f", not {display.shown(error['input'])}"
    return f"{origin}: {text}{value}"


def _check(values: Mapping[str, Any], arguments: Mapping[str, Any], file: ConfigFile | None) -> None:
    """Check the options as `Oban` does; the error names the place of the value that causes it."""
    options = {key: values[key] for key in OPTIONS if key in values}
    if (error := _refusal(options)) is None:
        return
    lease = {key: options[key] for key in options if key == "lease"}
    if lease and (refusal := _refusal(lease)):
        raise ConfigError(f"{_origin(('lease',), arguments, file)}: {refusal}")
    for key, value in options.items():
        # Intervals are compared with the lease.
        found = _culprit(lambda part: _refusal({**lease, **part}), {key: value})
        if found:
            path, refusal = found
            raise ConfigError(f"{_origin(path, arguments, file)}: {refusal}")
    involved = [key for key in options if re.search(rf"\b{key}\b", str(error))]
    places = ", ".join(f"{key} is from {_origin((key,), arguments, file)}" for key in involved)
    raise ConfigError(f"{error} ({places})")


def _refusal(options: Mapping[str, Any]) -> ConfigError | None:
    """The reason why `Oban` refuses some options."""
    try:
        if "retention" in options:
            options = {**options, "retention": parse_retention(options["retention"])}
        Options.make(**options)
    except ConfigError as error:
        return error
    return None


def _culprit(
    check: Callable[[Mapping[str, Any]], ConfigError | None], part: Mapping[str, Any]
) -> tuple[tuple[str, ...], ConfigError] | None:
    """The path of the innermost value that is wrong on its own, and the reason."""
    for key, value in part.items():
        if refusal := check({key: value}):
            inner = isinstance(value, dict) and _culprit(lambda part, key=key: check({key: part}), value)  # type: ignore[misc]
            path, reason = inner or ((), refusal)
            return (key, *path), reason
    return None
