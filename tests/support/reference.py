"""Writes tables of the reference that are no docstrings: `python -m tests.support.reference`.

What they say comes from the code: from the commands, the models with their docstrings and `info`, the errors
and the events. A table is between two comments of its page, so that the rest of the page is written by hand.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import click
import griffe
from sqlalchemy import CheckConstraint, Column, PrimaryKeyConstraint, Table
from sqlalchemy.dialects import postgresql, sqlite

from oban import errors, models, telemetry
from oban.cli import main
from oban.cli.options import _OPTIONS as SETTING_OPTIONS
from oban.cli.setting_types import TYPES
from oban.cli.settings import flag, variable
from tests.support.docstrings import separated
from tests.support.processes import ROOT

PAGES = ROOT / "docs" / "reference"
DIALECTS: dict[str, Any] = {
    "PostgreSQL": postgresql.dialect(),  # type: ignore[no-untyped-call]
    "SQLite": sqlite.dialect(),
}
_MARK = "<!-- {} of the code: run `python -m tests.support.reference` -->"


def _region(name: str, make: Callable[[], str], _: re.Match[str]) -> str:
    return f"{_MARK.format(name)}\n\n{make().strip()}\n\n<!-- end -->"


def replaced(page: Path) -> str:
    """The text of a page with the tables as they have to be."""
    text = page.read_text()
    for name, make in TABLES.items():
        pattern = re.escape(_MARK.format(name)) + r"\n.*?<!-- end -->"
        if _MARK.format(name) in text:
            # A function, because backslashes of a string would be escapes.
            text = re.sub(pattern, partial(_region, name, make), text, flags=re.DOTALL)
    return text


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = [*head]
    lines = [names, ["---"] * len(names), *([cell(item) for item in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def sections(item: Any) -> tuple[str, dict[str, str]]:
    """The text of a docstring before its first section, and what its arguments and attributes mean."""
    value = "\n".join(separated((inspect.getdoc(item) or "").split("\n")))
    docstring = griffe.Docstring(value, parser=griffe.Parser.google)
    text, attributes = "", {}
    for section in docstring.parse("google", warnings=False):
        if section.kind is griffe.DocstringSectionKind.text and not text:
            text = section.value
        if section.kind in (griffe.DocstringSectionKind.attributes, griffe.DocstringSectionKind.parameters):
            for attribute in section.value:
                attributes[attribute.name] = attribute.description
    return text, attributes


def summary(item: Any) -> str:
    return " ".join(sections(item)[0].split("\n\n")[0].split())


# -- errors and events ---------------------------------------------------------------------------------


def error_rows() -> Iterator[tuple[str, str, str]]:
    for name, item in vars(errors).items():
        if isinstance(item, type) and item.__module__ == errors.__name__:
            bases = [f"`{base.__name__}`" for base in item.__bases__ if base is not Exception]
            yield f"[`{name}`](#oban.errors.{name})", ", ".join(bases), summary(item)


def error_table() -> str:
    return table(("error", "is also", "raised when"), error_rows())


def event_table() -> str:
    rows = []
    for event in telemetry.EVENTS:
        names = [item.name for item in fields(event) if item.name not in ("instance", "node")]
        rows.append(
            (
                f"[`{event.__name__}`](#oban.telemetry.{event.__name__})",
                summary(event),
                ", ".join(f"`{name}`" for name in names),
            )
        )
    return table(("event", "when", "fields, besides `instance` and `node`"), rows)


# -- commands ------------------------------------------------------------------------------------------


def commands(
    group: click.Group = main, path: tuple[str, ...] = ("oban",)
) -> Iterator[tuple[str, click.Command]]:
    """All commands that do something, by what is typed."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


#: The options by which most commands find the instance, here as `oban jobs list` has them.
COMMON = ("config", "app", "database_url", "url", "url_token_file", "prefix", "name")


def common_rows() -> dict[str, tuple[str, str, str]]:
    command = dict(commands())["oban jobs list"]
    params = {str(param.name): param for param in command.params}
    context = click.Context(command)
    return {name: row for name in COMMON if (row := _parameter_row(params[name], context)) is not None}


def common_options() -> str:
    return table(("option", "meaning", "default"), common_rows().values())


def command_sections() -> str:
    parts = []
    shared = common_rows()
    for name, command in commands():
        context = click.Context(command, info_name=name)
        usage = " ".join(command.collect_usage_pieces(context))
        every = {str(param.name): _parameter_row(param, context) for param in command.params}
        common = [f"`{flag(key)}`" for key in COMMON if key in every and every[key] == shared[key]]
        rows = [row for key, row in every.items() if row is not None and row != shared.get(key)]
        text = inspect.cleandoc(command.help or "").replace("\b\n", "")
        parts.append(f"### `{name}`\n\n```text\n{name} {usage}\n```\n\n{_escaped(text)}\n")
        if rows:
            width = 3 if any(default for *_, default in rows) else 2
            parts.append(table(("option", "meaning", "default")[:width], (row[:width] for row in rows)))
        if common:
            parts.append(f"Also {', '.join(common)} ([which instance](#options-that-choose-the-instance)).\n")
    return "\n".join(parts)


def _parameter_row(param: click.Parameter, context: click.Context) -> tuple[str, str, str] | None:
    if not isinstance(param, click.Option) or param.hidden:
        return None
    value = param.make_metavar(context)
    names = ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))
    shown = names if param.is_flag or param.count else f"{names} `{value}`"
    text, _, default = (param.help or "").partition("  [default: ")
    found = re.search(r" \(default: (the environment variable \w+)\)", text)
    if found:
        text, default = text.replace(found[0], ""), f"{found[1]}]"
    # Where click shows the default, the help has none.
    if not default and param.show_default and param.default not in (None, ()):
        default = f"{param.default}]"
    if isinstance(param.type, click.IntRange) and not param.is_flag:
        limits = f"{param.type.min} to {param.type.max}"
        text += f" {limits}." if param.type.max is not None and limits not in text else ""
    default = default.removesuffix("]")
    return shown, _escaped(text), f"`{default}`" if re.fullmatch(r"[\w.:-]+", default) else default


def _escaped(text: str) -> str:
    """Help as Markdown: what looks like an option, a file or code is shown as code."""
    text = re.sub(r"(?<![\w`-])(--?[a-z][\w-]*)", r"`\1`", text)
    return re.sub(r"(?<![`\w])([*_<])", r"\\\1", text)


def setting_table() -> str:
    rows = []
    for key in TYPES:
        option = f"`{flag(key)}`" if key in SETTING_OPTIONS else ""
        rows.append((f"`{key}`", f"`{variable(key)}`", option))
    return table(("setting in the file", "environment variable", "option of commands"), rows)


# -- tables --------------------------------------------------------------------------------------------


def _type(column: Column[Any], database: str) -> str:
    dialect = DIALECTS[database]
    shown = dialect.type_compiler_instance.process(column.type, type_expression=column)
    return str(shown).lower().replace('collate "c"', 'COLLATE "C"').removesuffix(" without time zone")


def _default(column: Column[Any]) -> str:
    if column.identity is not None:
        return "the next number"
    if column.server_default is None:
        return ""
    argument: Any = column.server_default.arg  # type: ignore[attr-defined]
    shown = {
        str(argument.compile(dialect=dialect) if hasattr(argument, "compile") else argument)
        for dialect in DIALECTS.values()
    }
    if any("now()" in text for text in shown):
        return "the time, in UTC"
    if any("xact_id" in text for text in shown):
        return "the id of the transaction"
    return "empty" if shown == {"'{}'", "'[]'"} else " or ".join(f"`{text}`" for text in sorted(shown))


def _columns(model: Any, meanings: dict[str, str]) -> str:
    rows = []
    for column in model.__table__.columns:
        types = [_type(column, database) for database in DIALECTS]
        shown = f"`{types[0]}`" if types[0] == types[1] else f"`{types[0]}`; `{types[1]}`"
        null = "yes" if column.nullable else "no"
        rows.append((f"`{column.name}`", shown, null, _default(column), meanings[column.key]))
    return table(("column", "type (PostgreSQL; SQLite)", "NULL", "default", "meaning"), rows)


def _indexes(tables: Table) -> Iterator[tuple[str, str, str]]:
    for constraint in tables.constraints:
        if isinstance(constraint, PrimaryKeyConstraint) and constraint.name:
            columns = ", ".join(f"`{column.name}`" for column in constraint.columns)
            yield f"`{constraint.name}`", columns, "The primary key."
    for index in sorted(tables.indexes, key=lambda index: str(index.name)):
        columns = ", ".join(f"`{column.name}`" for column in index.columns)
        where = index.dialect_options["postgresql"]["where"]
        if where is not None:
            columns += f" where `{where}`"
        if (using := index.dialect_options["postgresql"]["using"]) is not None and using is not False:
            columns += f" ({using.upper()} on PostgreSQL)"
        yield f"`{index.name}`", columns, index.info["purpose"]


def schema_sections() -> str:
    parts = []
    # Tests define subclasses of these models.
    mapped = [each.class_ for each in models.Base.registry.mappers]
    own = [model for model in mapped if model.__module__.startswith("oban.")]
    model: Any
    for model in sorted(own, key=lambda model: ORDER.index(model.__name__)):
        text, meanings = sections(model)
        if model is models.Job:
            # The rest is about its constructor.
            text = summary(model)
        parts.append(f"### `{model.__tablename__}`\n\n{text}\n")
        parts.append(_columns(model, meanings))
        if indexes := [*_indexes(model.__table__)]:
            parts.append(table(("index", "columns", "why it exists"), indexes))
        checks = [
            (f"`{item.name}`", f"`{item.sqltext}`" + (" (SQLite)" if item.name == "known_state" else ""))
            for item in model.__table__.constraints
            if isinstance(item, CheckConstraint)
        ]
        if checks:
            parts.append(table(("constraint", "condition"), sorted(checks)))
    return "\n".join(parts)


#: The models in the order of the page.
ORDER = ["Job", "Leader", "Producer", "Queue", "UniqueKey", "PeriodicEntry", "Tick", "Attempt"]

TABLES: dict[str, Callable[[], str]] = {
    "Errors": error_table,
    "Events": event_table,
    "Common options": common_options,
    "Commands": command_sections,
    "Settings": setting_table,
    "Tables": schema_sections,
}

if __name__ == "__main__":
    for path in PAGES.glob("*.md"):
        path.write_text(replaced(path))
