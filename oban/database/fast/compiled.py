"""Statements that are run again as SQLAlchemy ran them the first time, straight on the driver's connection.

To look up what a statement was compiled to, and to make the context of an execution, a result, and a
transaction that is none, takes half of the time of an insert in Python. In a process that was idle it is so
much code to be fetched from memory that a job begins a tenth of a millisecond later.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

from sqlalchemy import Connection, CursorResult, Result, Row
from sqlalchemy.engine.interfaces import DBAPIConnection


class Prepared:
    """One statement on one engine: its SQL, and what turns values into parameters and columns into values."""

    __slots__ = ("_binds", "_fixed", "_make_row", "_named", "_sql")

    _sql: str
    #: The parameters in the order that the driver wants, or of any if it takes them by name.
    _binds: list[tuple[str, Callable[[Any], Any] | None]]
    _named: bool
    #: Values that are part of the statement.
    _fixed: dict[str, Any]
    _make_row: Callable[[Any], Row[Any]]

    @classmethod
    def after(cls, result: Result[*tuple[Any, ...]], given: Mapping[str, Any]) -> Self | None:
        """What a first execution, with `given` as parameters, shows; None if it is not the same each time."""
        if not isinstance(result, CursorResult) or not result.returns_rows:
            return None
        try:
            return cls._after(result, given)
        # Of a later SQLAlchemy, which has other names for what it shows to nobody. The statement was run.
        except AttributeError:
            return None

    @classmethod
    def _after(cls, result: CursorResult[Any], given: Mapping[str, Any]) -> Self | None:
        context: Any = result.context
        compiled = context.compiled
        # A list becomes as many parameters as it is long, and a default is made anew for each row.
        varies = compiled.post_compile_params or compiled.literal_execute_params or compiled.prefetch
        if varies or compiled.escaped_bind_names:
            return None
        self = cls.__new__(cls)
        self._sql = context.statement
        values = context.compiled_parameters[0]
        names = compiled.positiontup if compiled.positional else [*values]
        processors: Mapping[str, Any] = compiled._bind_processors
        self._binds = [(name, processors.get(name)) for name in names or ()]
        self._named = not compiled.positional
        self._fixed = {name: value for name, value in values.items() if name not in given}
        columns = result._metadata
        self._make_row = partial(Row, columns, columns._effective_processors, columns._key_to_index)
        return self

    def rows(
        self, connection: Connection, driven: DBAPIConnection, given: Mapping[str, Any]
    ) -> Sequence[Row[Any]]:
        """Run it on the driver's connection of one of SQLAlchemy's; all rows. Raises what that one raises."""
        dialect: Any = connection.dialect
        cursor = context = None
        parameters: Any = None
        try:
            values = {**self._fixed, **given}
            filled = [
                values[name] if process is None else process(values[name]) for name, process in self._binds
            ]
            parameters = tuple(filled)
            if self._named:
                parameters = dict(zip((name for name, _ in self._binds), filled, strict=True))
            cursor = driven.cursor()
            # As much of one as drivers need: asyncpg's, whose statements go stale when a table is altered.
            context = dialect.execution_ctx_cls.__new__(dialect.execution_ctx_cls)
            context.dialect, context.cursor = dialect, cursor
            context.pre_exec()
            dialect.do_execute(cursor, self._sql, parameters)
            rows = cursor.fetchall()
        except BaseException as error:
            connection._handle_dbapi_exception(error, self._sql, parameters, cursor, context)
        cursor.close()
        return [*map(self._make_row, rows)]
