"""Private names of SQLAlchemy's statements, and of what they compile to and return."""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from sqlalchemy import Connection, CursorResult, Select
from sqlalchemy.sql.compiler import SQLCompiler


def locks_rows(statement: Select[Any]) -> bool:
    """Return whether a SELECT has FOR UPDATE; False without the name."""
    return getattr(statement, "_for_update_arg", None) is not None


def is_limited(statement: Select[Any]) -> bool:
    """Return whether LIMIT, OFFSET, FETCH, HAVING or DISTINCT ON can make a SELECT leave rows out.

    A clause whose name is gone counts as absent: a call then needs `everything=True`.
    """
    bounds = ("_limit_clause", "_offset_clause", "_fetch_clause")
    if any(getattr(statement, name, None) is not None for name in bounds):
        return True
    return bool(getattr(statement, "_having_criteria", ()) or getattr(statement, "_distinct_on", ()))


def named_columns(statement: Any) -> list[Any]:
    """Return the columns that an INSERT has values for. Without the names, none: a job is available."""
    values, names = getattr(statement, "_values", None), getattr(statement, "_select_names", None)
    return [*(values or ()), *(names or ())]


def compiles_distinct(compiler: SQLCompiler) -> bool:
    """Return whether the SELECT that is being compiled is DISTINCT.

    Without the names, False: on PostgreSQL, a SELECT DISTINCT of jobs that is ordered by a time fails.
    """
    stack: Any = getattr(compiler, "stack", None)
    return bool(stack) and bool(getattr(stack[-1].get("selectable"), "_distinct", False))


def bind_processors(compiled: Any) -> Mapping[str, Callable[[Any], Any]]:
    """Return what turns values into driver parameters. An AttributeError turns the fast path off."""
    processors: Mapping[str, Callable[[Any], Any]] = compiled._bind_processors
    return processors


def row_arguments(result: CursorResult[Any]) -> tuple[Any, Any, Any]:
    """Return the first arguments of `Row` for a result. An AttributeError turns the fast path off."""
    metadata: Any = result._metadata
    return metadata, metadata._effective_processors, metadata._key_to_index


def raise_dbapi_error(
    connection: Connection, error: BaseException, statement: str, parameters: Any, cursor: Any, context: Any
) -> NoReturn:
    """Raise a driver's error as SQLAlchemy does. Without the name, raise it as it is."""
    handle = getattr(connection, "_handle_dbapi_exception", None)
    if handle is not None:
        handle(error, statement, parameters, cursor, context)
    raise error
