"""Private names of SQLAlchemy's statements, and of what they compile to and return."""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from sqlalchemy import (
    BindParameter,
    ColumnClause,
    CompoundSelect,
    Connection,
    CursorResult,
    Insert,
    Label,
    Select,
    TextClause,
    UnaryExpression,
)
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import Grouping
from sqlalchemy.types import TypeEngine


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
    # All rows of `values([…])` have the columns of the first one.
    rows = getattr(statement, "_multi_values", None)
    return [*(values or ()), *(names or ()), *(rows[0][0] if rows else ())]


def parameter_names(statement: Any) -> dict[str, str]:
    """Return the names of the parameters that an INSERT has instead of values, by their columns.

    Without the name, none: a unique job whose worker is such a parameter is then not guarded.
    """
    values = getattr(statement, "_values", None) or {}
    return {
        getattr(column, "key", column): value.key
        for column, value in values.items()
        if isinstance(value, BindParameter) and not value.unique
    }


def prefetched_rows(context: Any, key: str) -> list[int]:
    """Return the numbers of the rows of an INSERT that need the default of a column.

    Without the name, the first one, which is that of each statement without `values([…])`.
    """
    columns = getattr(context.compiled, "insert_prefetch", None)
    if columns is None:
        return [0]
    return [row_number(column) for column in columns if getattr(column, "original", column).key == key]


def row_number(column: Any) -> int:
    """Return for which row of an INSERT a default is needed.

    `insert(Job).values([…])` calls it with the column itself for the first row, and with numbered copies of
    it for the next ones.
    """
    return column.index + 1 if hasattr(column, "original") else 0


def compiles_distinct(compiler: SQLCompiler) -> bool:
    """Return whether the SELECT that is being compiled is DISTINCT.

    Without the names, False: on PostgreSQL, a SELECT DISTINCT of jobs that is ordered by a time fails.
    """
    stack: Any = getattr(compiler, "stack", None)
    return bool(stack) and _is_distinct(stack[-1].get("selectable"))


def is_distinct_column(column: Any) -> bool:
    """Return whether a selected column is a `column.distinct()`, which cannot be in a function or a cast."""
    while isinstance(column, (Label, Grouping)):
        column = column.element
    return isinstance(column, UnaryExpression) and column.operator is operators.distinct_op


def _is_distinct(statement: Any) -> bool:
    columns = getattr(statement, "_raw_columns", ())
    return bool(getattr(statement, "_distinct", False)) or any(map(is_distinct_column, columns))


def can_select_converted(compiler: SQLCompiler, type_: type[TypeEngine[Any]]) -> bool:
    """Return whether a column of a type can be converted where the statement being compiled selects it.

    It cannot be where the statement compares what it selects: by the name of the column in ORDER BY or GROUP
    BY, by DISTINCT, or in a UNION. Without the names, False: asyncpg then asks the server about the type.
    """
    try:
        private: Any = compiler
        return not any(_compares_selected(entry["selectable"], type_) for entry in private.stack)
    except (AttributeError, KeyError):
        return False


def _compares_selected(statement: Any, type_: type[TypeEngine[Any]]) -> bool:
    if isinstance(statement, CompoundSelect):
        rows = {
            tuple(isinstance(column.type, type_) for column in each.selected_columns)
            for each in statement.selects
        }
        return len(rows) > 1 or bool(statement._order_by_clauses)
    if not isinstance(statement, Select):
        return False
    order = statement._order_by_clauses
    if any(_is_name(clause, type_) for clause in (*order, *statement._group_by_clauses)):
        return True
    compared = _is_distinct(statement) and not statement._distinct_on
    return compared and any(
        isinstance(getattr(element, "type", None), type_)
        for clause in order
        for element in visitors.iterate(clause)
    )


def _is_name(clause: Any, type_: type[TypeEngine[Any]]) -> bool:
    """Return whether a clause of ORDER BY or GROUP BY may be the name of a selected column of a type."""
    while getattr(clause, "__visit_name__", None) in ("unary", "label_reference", "textual_label_reference"):
        clause = clause.element
    if isinstance(clause, Label):
        return isinstance(clause.type, type_)
    if isinstance(clause, ColumnClause):
        return clause.table is None
    return isinstance(clause, (str, TextClause))


def compiles_for_many(compiler: SQLCompiler) -> bool:
    """Return whether the clause that is being compiled is executed for many rows, or belongs to an INSERT.

    Without the names, True.
    """
    stack: Any = getattr(compiler, "stack", None)
    if stack is None or executes_many(compiler):
        return True
    return bool(stack) and isinstance(stack[-1].get("selectable"), Insert)


def executes_many(compiler: SQLCompiler) -> bool:
    """Return whether a statement is compiled to be executed for many rows; True without the name."""
    return bool(getattr(compiler, "for_executemany", True))


def infers_index(options: Mapping[str, Any]) -> bool:
    """Return whether a clause belongs to the condition by which ON CONFLICT finds a partial index.

    Without the name, False: PostgreSQL then finds no index by the state of its jobs.
    """
    return options.get("include_table") is False


def check_literals(compiler: SQLCompiler, checked: Any) -> None:
    """Let the errors of a type about values that become literals reach the caller.

    Without the name, SQLAlchemy raises a `CompileError` that does not say what is wrong with the value.
    """
    private: Any = compiler
    render = getattr(private, "render_literal_value", None)
    if render is None or "render_literal_value" in vars(private):
        return

    def render_checked(value: Any, type_: Any) -> str:
        if isinstance(type_, checked) and value is not None:
            type_.process_literal_param(value, private.dialect)
        text: str = render(value, type_)
        return text

    private.render_literal_value = render_checked


def mark_condition(element: Any) -> None:
    """Let an expression be a condition as it is. Without the name, SQLite gets `… = 1`, and uses no index."""
    element._is_implicitly_boolean = True


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
