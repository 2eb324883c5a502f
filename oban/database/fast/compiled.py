"""Statements that are run again as SQLAlchemy ran them first, directly on the driver's connection.

SQLAlchemy's work for each execution (cache lookup, execution context, result, autobegin) is about half of the
Python time of an insert. In an idle process its code is no longer in the CPU caches, which adds about 0.1 ms
to the latency of a job. With aiosqlite, it also sends each method of a cursor to another thread.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Self

from sqlalchemy import Connection, CursorResult, Row
from sqlalchemy.engine.interfaces import DBAPIConnection

from oban import compat

#: SQL with its parameters as the driver takes them. A list of them loses each one that has run.
_Steps = list[tuple[str, Any]]


class CompiledStatement:
    """One statement on one engine: its SQL, and the converters of its parameters and columns."""

    __slots__ = ("_constants", "_make_row", "_named", "_parameters", "_sql")

    _sql: str
    #: Names of the parameters with their converters, in the driver's order.
    _parameters: list[tuple[str, Callable[[Any], Any] | None]]
    #: Whether the driver takes parameters by name.
    _named: bool
    #: Values of the parameters that belong to the statement itself.
    _constants: dict[str, Any]
    _make_row: Callable[[Any], Row[Any]]

    @classmethod
    def capture(
        cls, result: CursorResult[Any], parameters: Mapping[str, Any], *, returns_rows: bool = True
    ) -> Self | None:
        """The compiled form, read from a first execution.

        None if the SQL, or a parameter of the statement's own, varies from one execution to the next. Without
        `returns_rows`, it can only run before another statement.
        """
        if not isinstance(result, CursorResult) or result.returns_rows != returns_rows:
            return None
        try:
            return cls._capture(result, parameters)
        # A later SQLAlchemy may have changed its private parts. The statement has run, so it is just not
        # captured.
        except (AttributeError, TypeError):
            return None

    @classmethod
    def _capture(cls, result: CursorResult[Any], parameters: Mapping[str, Any]) -> Self | None:
        context: Any = result.context
        compiled = context.compiled
        # A list expands to one parameter for each element, and a Python-side default is new for each row.
        varies = compiled.post_compile_params or compiled.literal_execute_params or compiled.prefetch
        if varies or compiled.escaped_bind_names:
            return None
        # A parameter with a function, such as the time by a moved clock, is new for each execution.
        if any(parameter.callable is not None for parameter in compiled.binds.values()):
            return None
        self = cls.__new__(cls)
        self._sql = context.statement
        values = context.compiled_parameters[0]
        names = compiled.positiontup if compiled.positional else [*values]
        processors = compat.bind_processors(compiled)
        self._parameters = [(name, processors.get(name)) for name in names or ()]
        self._named = not compiled.positional
        self._constants = {name: value for name, value in values.items() if name not in parameters}
        if result.returns_rows:
            self._make_row = partial(Row, *compat.row_arguments(result))
            # Fails here, rather than with the next execution, if rows are made in another way.
            self._make_row((None,) * len(result.keys()))
        return self

    def rows(
        self,
        connection: Connection,
        dbapi_connection: DBAPIConnection,
        parameters: Mapping[str, Any],
        before: Self | None = None,
    ) -> Sequence[Row[Any]]:
        """Run it on the driver's connection that `connection` uses; all rows, or SQLAlchemy's error.

        The statement `before` runs first, with the same parameters.
        """
        dialect: Any = connection.dialect
        cursor = context = None
        steps: _Steps = []
        try:
            if before is not None:
                steps.append((before._sql, before._converted(parameters)))
            steps.append((self._sql, self._converted(parameters)))
            run = compat.sqlite_thread(dbapi_connection)
            if run is not None:
                rows: Sequence[Any] = run(partial(_run_all, steps))
            else:
                cursor = dbapi_connection.cursor()
                # Only as much of an execution context as drivers need: asyncpg prepares a statement again
                # when a table was altered.
                context = dialect.execution_ctx_cls.__new__(dialect.execution_ctx_cls)
                context.dialect, context.cursor = dialect, cursor
                context.pre_exec()
                while steps:
                    dialect.do_execute(cursor, *steps[0])
                    del steps[0]
                rows = cursor.fetchall()
        except BaseException as error:
            sql, converted = steps[0] if steps else (self._sql, None)
            compat.raise_dbapi_error(connection, error, sql, converted, cursor, context)
        if cursor is not None:
            cursor.close()
        return [*map(self._make_row, rows)]

    def _converted(self, parameters: Mapping[str, Any]) -> Any:
        """The parameters as the driver takes them."""
        values = {**self._constants, **parameters}
        converted = [
            values[name] if convert is None else convert(values[name]) for name, convert in self._parameters
        ]
        if self._named:
            return dict(zip((name for name, _ in self._parameters), converted, strict=True))
        return tuple(converted)


def _run_all(steps: _Steps, connection: sqlite3.Connection) -> list[Any]:
    """The rows of the last statement. It leaves no statement open, which would keep its lock."""
    with closing(connection.cursor()) as cursor:
        while steps:
            cursor.execute(*steps[0])
            del steps[0]
        return cursor.fetchall()
