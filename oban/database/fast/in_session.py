"""Runs compiled statements again in a transaction, where nothing observes them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Dialect, Executable, Row
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import instance_state

from oban import compat
from oban.database.fast.compiled import CompiledStatement

#: Execution options of a connection that make no difference to a compiled statement in a known schema.
_KNOWN_OPTIONS = frozenset({"isolation_level", "schema_translate_map"})
_NEW = object()

#: The compiled forms of one engine's statements, by statement and schema; None where SQLAlchemy has to
#: execute it every time.
_Compiled = dict[tuple[Executable, str | None], CompiledStatement | None]


def add_all(session: Session, instances: Iterable[object]) -> None:
    """Add instances to a session as its own `add_all` does.

    It takes half of the time, because nothing cascades from instances without relationships.
    """
    attach = compat.attach_function(session)
    if attach is None:
        session.add_all(instances)
        return
    for instance in instances:
        state = instance_state(instance)
        if state.mapper.relationships:
            session.add(instance)
        else:
            attach(state)


class TransactionStatements:
    """The compiled forms of statements that run in transactions, on any engine."""

    def __init__(self) -> None:
        self._compiled: WeakKeyDictionary[Dialect, _Compiled] = WeakKeyDictionary()

    def rows(
        self,
        session: Session | None,
        connection: Connection,
        prefix: str | None,
        statement: Executable,
        parameters: Mapping[str, Any],
        execute: Callable[[Executable, Mapping[str, Any]], Any],
        before: Executable | None = None,
    ) -> Sequence[Row[Any]]:
        """All rows of a statement on a connection, which may be that of an application's session.

        `execute` adds the `prefix`, if there is one. It runs the statement until its compiled form is known,
        and whenever something observes the statements. The statement `before` runs first, with the same
        parameters.
        """
        options, schema = connection.get_execution_options(), prefix
        if prefix is None and "schema_translate_map" in options:
            schema = (options["schema_translate_map"] or {}).get(None)
        if (
            (options and not _KNOWN_OPTIONS.issuperset(options))
            or not (session is None or compat.executes_directly(session))
            or compat.is_observed(connection)
        ):
            if before is not None:
                execute(before, parameters)
            return execute(statement, parameters).all()  # type: ignore[no-any-return]
        dialect = connection.dialect
        if (known := self._compiled.get(dialect)) is None:
            known = self._compiled.setdefault(dialect, {})
        compiled: Any = known.get((statement, schema), _NEW)
        first: Any = None if before is None else known.get((before, schema), _NEW)
        if (
            isinstance(compiled, CompiledStatement)
            and (first is None) == (before is None)
            and first is not _NEW
        ):
            driver = connection.connection.dbapi_connection
            return compiled.rows(connection, driver, parameters, first)  # type: ignore[arg-type]
        if before is not None:
            stored = execute(before, parameters)
            if first is _NEW:
                known[before, schema] = CompiledStatement.capture(stored, parameters, returns_rows=False)
        result = execute(statement, parameters)
        if compiled is _NEW:
            known[statement, schema] = CompiledStatement.capture(result, parameters)
        return result.all()  # type: ignore[no-any-return]
