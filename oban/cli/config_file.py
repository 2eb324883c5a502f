"""The configuration file: which one it is, what it contains, and the lines of its keys."""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from oban import display
from oban.errors import ConfigError

#: The table of pyproject.toml. The other files contain nothing else, so their keys are at the top.
_TABLE = ("tool", "oban")
#: Without this, a pyproject.toml has no settings: `[tool.oban]`, or `oban` in `[tool]`.
_MENTION = re.compile(rb"""tool["' \t]*\.["' \t]*oban\b|^\s*["']?oban\b""", re.MULTILINE)
#: The end of an array, a table or a string of several lines.
_CLOSING = re.compile(r"""[\]}]|\"{3}|'{3}""")
_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """A configuration file that has been read."""

    path: Path
    #: The table with the settings.
    table: tuple[str, ...]
    values: Mapping[str, Any]
    text: str

    @property
    def name(self) -> str:
        """The path as messages show it: relative to the current folder where the file is below that."""
        return _shown(self.path)

    @property
    def shadowed(self) -> str | None:
        """The pyproject.toml in the same folder, if its settings are not used because of this file."""
        other = self.path.with_name("pyproject.toml")
        if self.path == other or not os.path.isfile(other):
            return None
        return _shown(other) if _read(other) else None

    def line(self, *keys: str) -> int | None:
        """The line of a key, or of the innermost table or value around it that has a line of its own."""
        path = (*self.table, *keys)
        while len(path) > len(self.table):
            if path in self._lines:
                return self._lines[path]
            path = path[:-1]
        return None

    @cached_property
    def _lines(self) -> dict[tuple[str, ...], int]:
        return dict(_lines(self.text))

    def place(self, *keys: str) -> str:
        """The file and the line of a key, for messages."""
        line = self.line(*keys)
        return f"{self.name}, line {line}" if line else self.name


def choose(path: str | None) -> ConfigFile | None:
    """Read the file at this path, or else the nearest one in the current folder and those above it.

    Of two files in one folder, oban.toml takes precedence over pyproject.toml.

    Returns:
        None if there is no path, and no file with settings is found.

    Raises:
        ConfigError: The file cannot be read, is not valid TOML, or has no settings where they belong.
    """
    if path is not None:
        chosen = _read(Path(path).absolute(), is_chosen=True)
        if chosen is None:
            raise ConfigError(f"{path}: there is no table [tool.oban]")
        return chosen
    try:
        current = Path.cwd()
    except FileNotFoundError:
        # The current folder has been deleted.
        return None
    for folder in (current, *current.parents):
        for name in ("oban.toml", "pyproject.toml"):
            if os.path.isfile(folder / name) and (found := _read(folder / name)) is not None:
                return found
    return None


def _read(path: Path, *, is_chosen: bool = False) -> ConfigFile | None:
    """Read a file; returns None for a pyproject.toml without settings."""
    shown = _shown(path)
    is_pyproject = path.name == "pyproject.toml"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{shown} cannot be read: {error.strerror}") from None
    if is_pyproject and not is_chosen and not _MENTION.search(content):
        # Errors of the file are the business of other tools.
        return None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{shown}, line {line}: the file is not UTF-8") from None
    try:
        values: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        position = _POSITION.search(str(error))
        line = int(position[1] or text.rstrip().count("\n") + 1) if position else 1
        problem = str(error)[: position.start()] if position else str(error)
        raise ConfigError(f"{shown}, line {line}: the file is not valid TOML: {problem}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{shown}: the file is not valid TOML: {error}") from None
    table = _TABLE if is_pyproject or "tool" in values else ()
    for depth, key in enumerate(table):
        if isinstance(values, dict) and key not in values:
            return None
        values = values[key] if isinstance(values, dict) else None
        if not isinstance(values, dict):
            name = ".".join(table[: depth + 1])
            raise ConfigError(f"{shown}: {name} must be a table, not {display.shown(values)}")
    return ConfigFile(path=path, table=table, values=values, text=text)


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, FileNotFoundError):
        return str(path)


def _lines(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """The path of each table and each value of a valid TOML file, with the line at which it begins."""
    table: tuple[str, ...] = ()
    statement, first = "", 1
    # TOML knows fewer line ends than `splitlines`.
    for number, line in enumerate(text.split("\n"), 1):
        statement += line + "\n"
        if number > first and not _CLOSING.search(line):
            continue
        try:
            parsed = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            # An array or a string goes on in the next line.
            continue
        paths = list(_paths(parsed))
        if statement.lstrip().startswith("["):
            table = max(paths, key=len)
            yield table, first
        else:
            for path in paths:
                yield (*table, *path), first
        statement, first = "", number + 1


def _paths(values: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        yield (key,)
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                for path in _paths(inner):
                    yield (key, *path)
