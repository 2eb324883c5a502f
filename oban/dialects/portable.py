"""SQL expressions that are built before it is known which database will run them."""

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Float
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from oban import compat
from oban.dialects import SUPPORTED
from oban.dialects.documents import Documents, step

Condition = ColumnElement[bool]


class _PerDatabase(FunctionElement[Any]):
    """The same expression in the SQL of each database, in the order of `SUPPORTED`."""

    inherit_cache = True


class _EqualsColumn(FunctionElement[bool]):
    """Whether a document has the value of a column: the document, the column, and the steps of the path."""

    type = Boolean()
    inherit_cache = True


def per_database(
    build: Callable[[Documents], ColumnElement[Any]], type_: TypeEngine[Any]
) -> ColumnElement[Any]:
    """An expression that compiles to what `build` makes for the database that the statement runs on."""
    element = _PerDatabase(*(build(dialect.documents) for dialect in SUPPORTED.values()))
    element.type = type_
    if isinstance(type_, Boolean):
        compat.mark_condition(element)
    return element


def condition(build: Callable[[Documents], ColumnElement[Any]]) -> Condition:
    """A condition that compiles to what `build` makes for the database that the statement runs on."""
    return per_database(build, Boolean())


def equals_column(document: Any, path: Iterable[str | int], column: Any) -> Condition:
    """Whether a document has the value of a column at a path; can be the `primaryjoin` of a relationship."""
    # Not `per_database`: a relationship has to find both columns, once each, in what it joins on.
    return _EqualsColumn(document, column, *map(step, path)).as_comparison(1, 2)


def _database(compiler: SQLCompiler) -> str:
    # str(statement) compiles for no database in particular.
    return compiler.dialect.name if compiler.dialect.name in SUPPORTED else "postgresql"


@compiles(_PerDatabase)
def _render_one(element: _PerDatabase, compiler: SQLCompiler, **options: Any) -> str:
    by_name = dict(zip(SUPPORTED, element.clauses, strict=True))
    return f"({compiler.process(by_name[_database(compiler)], **options)})"


@compiles(_EqualsColumn)
def _render_equals(element: _EqualsColumn, compiler: SQLCompiler, **options: Any) -> str:
    document, column, *steps = element.clauses
    condition = SUPPORTED[_database(compiler)].documents.equals_column(document, steps, column)
    return f"({compiler.process(condition, **options)})"


class _Seconds(FunctionElement[float]):
    """The seconds of a time since 1970."""

    type = Float()
    inherit_cache = True


def seconds(time: ColumnElement[Any]) -> ColumnElement[float]:
    """The seconds of a stored time since 1970, with a fraction. NULL on SQLite for what is not a time."""
    return _Seconds(time)


@compiles(_Seconds)
def _render_seconds(element: _Seconds, compiler: SQLCompiler, **options: Any) -> str:
    time = compiler.process(element.clauses, **options)
    if _database(compiler) == "sqlite":
        return f"((julianday({time}) - 2440587.5) * 86400.0)"
    return f"CAST(extract(epoch FROM {time}) AS double precision)"
