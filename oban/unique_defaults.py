"""The columns of unique jobs in INSERT statements that have no value for them."""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.exc import DBAPIError

from oban import compat, encryption, insert_guard
from oban.errors import EncodingError, InvalidJob
from oban.insert_guard import COMPARED, NewJob, UniqueConflict
from oban.unique import Unique, of_job

#: Further values that decide which job is in the way of a later one of the statement.
_JUDGED = ("state", "scheduled_at", "inserted_at")
#: The key, and the rule as it is stored, by the row: the identity of its parameters, and its number in them.
_Found = Mapping[tuple[int, int], tuple[str, dict[str, Any]]]


def default_key(context: DefaultExecutionContext | None) -> str | None:
    """The `unique_key` of a row; raises `UniqueConflict` if a job is in the way of a row of the statement."""
    # Forms of admin interfaces ask for the default outside of a statement.
    if context is None:
        return None
    _seal(context)
    private = vars(context)
    if (found := private.get("oban_unique")) is None:
        # The first row: all of them are judged together.
        found = private["oban_unique"] = _judge(context)
    return found[_row(context)][0] if found and _row(context) in found else None


def default_rule(context: DefaultExecutionContext | None) -> dict[str, Any] | None:
    """The `unique_rule` of a row. A row of a statement that sets the key has none."""
    if context is None:
        return None
    _seal(context)
    found: _Found | None = vars(context).get("oban_unique")
    return found[_row(context)][1] if found and _row(context) in found else None


def _seal(context: DefaultExecutionContext) -> None:
    """Encrypt the args in the rows of a statement if their workers do so. Does nothing the second time."""
    if not encryption.is_used or "oban_sealed" in vars(context):
        return
    vars(context)["oban_sealed"] = True
    names = compat.parameter_names(getattr(context.compiled, "statement", None))
    worker, args = names.get("worker", "worker"), names.get("args", "args")
    for parameters in context.compiled_parameters:
        for name in [name for name in parameters if name.startswith(args)]:
            suffix = name.removeprefix(args)
            values = {"args": parameters[name], "worker": parameters.get(worker + suffix)}
            try:
                encryption.seal_values(values)
            except EncodingError:
                # The conversion of the parameters will raise the same error.
                continue
            parameters[name] = values["args"]


def _row(context: DefaultExecutionContext) -> tuple[int, int]:
    parameters = context.get_current_parameters(False)  # type: ignore[no-untyped-call]
    return id(parameters), compat.row_number(context.current_column)


def _judge(context: DefaultExecutionContext) -> _Found:
    """Judge all rows of a statement that leave the key to us."""
    places, jobs = [], []
    for place, unique, values in _unique_rows(context):
        try:
            jobs.append(NewJob(unique.key(values), unique, values))
        except InvalidJob:
            # The conversion of the parameters will raise the same error.
            continue
        places.append(place)
    if not jobs:
        return {}
    try:
        conflicts = insert_guard.judge(context.root_connection, jobs, _schemas(context))
    except DBAPIError as error:
        # SQLAlchemy puts its own error around it again, which would be a StatementError around this one.
        original = error.orig or error
        raise original from original.__cause__
    for conflict in conflicts:
        if conflict is not None:
            raise UniqueConflict(conflict.job_id)
    return {place: (job.key, job.unique.rule()) for place, job in zip(places, jobs, strict=True)}


def _unique_rows(
    context: DefaultExecutionContext,
) -> Iterator[tuple[tuple[int, int], Unique, dict[str, Any]]]:
    """The rows that insert unique jobs, with the values that are known: not those of SQL expressions."""
    by_worker: dict[str, Unique | None] = {}
    statement = getattr(context.compiled, "statement", None)
    names = compat.parameter_names(statement)
    expressions = {getattr(column, "key", column) for column in compat.named_columns(statement)}
    numbers = compat.prefetched_rows(context, "unique_key")
    for parameters in context.compiled_parameters:
        for number in numbers:
            suffix = f"_m{number}" if f"worker_m{number}" in parameters else ""
            worker = parameters.get(names.get("worker", "worker") + suffix)
            if not isinstance(worker, str):
                continue
            if worker not in by_worker:
                by_worker[worker], _ = of_job({"worker": worker})
            unique = by_worker[worker]
            if (rule := parameters.get(names.get("unique_rule", "unique_rule") + suffix)) is not None:
                unique = Unique.from_rule(rule)
            if unique is None:
                continue
            values = {}
            for field in (*COMPARED, *_JUDGED):
                name = names.get(field, field) + suffix
                if name in parameters:
                    values[field] = parameters[name]
                elif field not in expressions:
                    values[field] = COMPARED.get(field)
            if values.keys() >= {*unique.fields} and isinstance(values.get("args", {}), dict):
                yield (id(parameters), number), unique, values


def _schemas(context: DefaultExecutionContext) -> dict[str | None, str | None]:
    """The schema of the statement's table, as a map that leads the tables of the guard to it."""
    schemas = dict(context.execution_options.get("schema_translate_map") or {})
    schema = context.compiled.statement.table.schema  # type: ignore[union-attr]
    if schema is not None:
        schemas[None] = schemas.get(schema, schema)
    return schemas
