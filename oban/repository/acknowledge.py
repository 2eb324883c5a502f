"""Acknowledge: record how attempts ended, in one statement for many of them."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Executable,
    Float,
    Insert,
    SmallInteger,
    Text,
    and_,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    update,
)

from oban import encoding
from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.dialects.expressions import sql_literal
from oban.models import Job
from oban.repository import attempts
from oban.repository.announce import announce_available, announce_due
from oban.repository.runs import is_current_run
from oban.types import JobState

_jobs = Job.__table__
_job = _jobs.c

#: The outcomes of an attempt, and the state that a job gets by each.
OUTCOMES = {
    "completed": JobState.COMPLETED,
    "cancelled": JobState.CANCELLED,
    "snoozed": JobState.SCHEDULED,
    "released": JobState.AVAILABLE,
    "discarded": JobState.DISCARDED,
    # These two make it `discarded` if no attempt is left.
    "failed": JobState.RETRYABLE,
    "rescued": JobState.AVAILABLE,
}


class Ack(NamedTuple):
    """How a run ended; the first three fields are its `RunKey`."""

    id: int
    attempt: int
    owner: str
    #: A key of `OUTCOMES`.
    outcome: str
    #: The message of a new entry in `errors`.
    error: str | None = None
    #: Seconds until the job is due again.
    delay: float | None = None
    #: A recorded value, as JSON text.
    value: str | None = None
    #: The new count in `meta["snoozed"]`.
    snoozed: int | None = None
    #: The new count in `meta["rescued"]`.
    rescued: int | None = None
    #: What is put into `meta`, instead of the values above: JSON text of an object that is not empty.
    meta: str | None = None
    #: The last progress that the attempt reported, as JSON text.
    progress: str | None = None
    #: The last lines of the attempt's log, as the JSON text of a list.
    log: str | None = None
    #: The id of the trace that the attempt belongs to, for the history.
    trace: str | None = None


def acknowledge(tx: Transaction, acks: Sequence[Ack]) -> set[int]:
    """Record how runs ended, all in one statement; returns the ids of the jobs that were changed.

    A run that has lost its job (it was cancelled, rescued, retried or deleted) changes nothing, except that
    its error is added to a job that was cancelled while it executed.
    """
    if not acks:
        return set()
    dialect = tx.dialect
    acknowledgement, parameters = acknowledge_statement(dialect, acks, tx.history)
    rows = tx.rows(acknowledgement.statement, parameters, acknowledgement.before)
    changed: set[int] = {row[0] for row in rows}
    if late := [ack for ack in acks if ack.id not in changed]:
        _add_errors_of_cancelled(tx, [ack for ack in late if ack.error is not None])
        attempts.complete_late(tx, late)
    if available := [ack.id for ack in acks if ack.id in changed and ack.outcome in ("released", "rescued")]:
        queues = select(_job.queue).where(dialect.in_ids(_job.id, dialect.id_list())).distinct()
        announce_available(tx, tx.execute(queues, {"ids": available}).scalars())
    if delays := [ack.delay for ack in acks if ack.id in changed and ack.delay is not None]:
        announce_due(tx, min(delays))
    return changed


@dataclass(frozen=True, slots=True, eq=False)
class Acknowledgement:
    """The statement that stores outcomes and returns the ids of the changed rows, and its parts."""

    statement: Executable
    #: The outcomes, and the attempts that they end, as parts of another statement.
    acknowledged: CTE
    attempts: CTE | None = None
    #: Stores the attempts before the outcomes, where one statement cannot do both; with the same parameters.
    before: Insert | None = None


def acknowledge_statement(
    dialect: Dialect, acks: Sequence[Ack], history: bool
) -> tuple[Acknowledgement, dict[str, Any]]:
    """The statement for some outcomes, with its parameters."""
    _, attempt, owner, *_ = acks[0]
    # Most batches: all completed, without a value, in attempts of the same number.
    completed = Ack(0, attempt, owner, "completed")[1:-1]
    if all(ack[1:-1] == completed for ack in acks):
        ids = sorted(ack.id for ack in acks)
        parameters = {"ids": ids, "acked_attempt": attempt, "acked_owner": owner}
        has_traces = history and any(ack.trace for ack in acks)
        if has_traces:
            parameters["traces"] = encoding.dumps([{"id": ack.id, "trace": ack.trace} for ack in acks])
        return _complete_statement(dialect, history, has_traces), parameters
    records = [
        {name: value for name, value in ack._asdict().items() if value is not None} for ack in sorted(acks)
    ]
    return _outcomes_statement(dialect, history), {"acks": encoding.dumps(records)}


@functools.cache
def _complete_statement(dialect: Dialect, history: bool, has_traces: bool) -> Acknowledgement:
    has_id = dialect.in_ids(_job.id, dialect.id_list())
    attempt, owner = bindparam("acked_attempt", type_=SmallInteger), bindparam("acked_owner", type_=Text)
    # A single writer locks no rows.
    conditions = [has_id if dialect.single_writer else _locked_in_order(dialect, has_id)]
    values = {"state": dialect.state("completed"), "completed_at": dialect.now()}
    reported = {"attempt": _job.attempt, "outcome": sql_literal("completed")}
    if not dialect.writes_in_cte:
        # Cheaper than to take it from the JSON of each row, which the condition has checked.
        reported["producer"] = func.nullif(owner, sql_literal(""))
        reported["node"] = dialect.element(_job.attempted_by, 0, if_json=owner != sql_literal(""))
    if has_traces:
        traces = dialect.recordset("traces", {"id": BigInteger, "trace": Text}).c
        has_trace = _job.id == traces.id
        # By both, SQLite would scan all traces for each id.
        conditions = [has_trace] if dialect.single_writer else [*conditions, has_trace]
        reported["trace"] = traces.trace
    conditions.append(is_current_run(dialect, attempt, owner))
    return _acknowledgement(dialect, conditions, values, reported if history else None)


def _acknowledgement(
    dialect: Dialect,
    conditions: Sequence[ColumnElement[bool]],
    values: Mapping[str, ColumnElement[Any]],
    reported: Mapping[str, ColumnElement[Any]] | None,
) -> Acknowledgement:
    """The statement that writes values to the jobs of some runs.

    `reported` are the columns of their attempts that do not come from the jobs, or None to store no attempts.
    """
    outcomes = update(_jobs).where(*conditions).values(values)
    if reported is None or not dialect.writes_in_cte:
        statement, before = outcomes.returning(_job.id), None
        if reported is not None:
            columns = {**attempts.columns_of(dialect, _job), **reported, "ended_at": dialect.now()}
            before = attempts.insert_statement(columns, *conditions)
        return Acknowledgement(statement, statement.cte("acknowledged"), before=before)
    returned = (column.label(name) for name, column in reported.items())
    acknowledged = outcomes.returning(_job.id, _job.attempted_by, _job.attempted_at, *returned).cte(
        "acknowledged"
    )
    columns = attempts.columns_of(dialect, acknowledged.c) | {name: acknowledged.c[name] for name in reported}
    stored = attempts.insert_statement(columns | {"ended_at": dialect.now()}).cte("attempts")
    return Acknowledgement(select(acknowledged.c.id).add_cte(stored), acknowledged, stored)


def _locked_in_order(dialect: Dialect, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """`condition`, for rows that are locked in id order: as all statements do, so that none deadlock."""
    return dialect.in_subquery(_job.id, select(_job.id).where(condition).order_by(_job.id).with_for_update())


@functools.cache
def _outcomes_statement(dialect: Dialect, history: bool) -> Acknowledgement:
    ack = dialect.recordset(
        "acks",
        {
            "id": BigInteger,
            "attempt": BigInteger,
            "owner": Text,
            "outcome": Text,
            "error": Text,
            "delay": Float,
            "value": Text,
            "snoozed": BigInteger,
            "rescued": BigInteger,
            "meta": Text,
            "progress": Text,
            "log": Text,
            "trace": Text,
        },
    ).c
    now = dialect.now()
    # A single writer locks no rows, and SQLite would scan all acks for each id.
    is_locked = true() if dialect.single_writer else _locked_in_order(dialect, _job.id.in_(select(ack.id)))
    outcome_is = {outcome: ack.outcome == sql_literal(outcome) for outcome in OUTCOMES}
    runs_again = or_(outcome_is["failed"], outcome_is["rescued"])
    is_discarded = or_(outcome_is["discarded"], and_(runs_again, _job.attempt >= _job.max_attempts))

    recorded = {"recorded": sql_literal("true"), "return": ack.value}
    meta = case(
        (ack.value.is_not(None), dialect.set_keys(_job.meta, recorded)),
        (ack.meta.is_not(None), dialect.merge(_job.meta, ack.meta)),
        (ack.snoozed.is_not(None), dialect.set_keys(_job.meta, {"snoozed": ack.snoozed})),
        (ack.rescued.is_not(None), dialect.set_keys(_job.meta, {"rescued": ack.rescued})),
        else_=_job.meta,
    )

    def now_if(condition: ColumnElement[bool], column: Any) -> Any:
        return case((condition, now), else_=column)

    conditions = (is_locked, _job.id == ack.id, is_current_run(dialect, ack.attempt, ack.owner))
    values: dict[str, ColumnElement[Any]] = {
        "state": case(
            (is_discarded, dialect.state("discarded")),
            *((outcome_is[outcome], dialect.state(state)) for outcome, state in OUTCOMES.items()),
            else_=_job.state,
        ),
        "attempt": case(
            (or_(outcome_is["snoozed"], outcome_is["released"]), _job.attempt - literal_column("1")),
            else_=_job.attempt,
        ),
        "errors": case(
            (ack.error.is_not(None), dialect.append_error(_job.errors, _job.attempt, ack.error)),
            else_=_job.errors,
        ),
        "meta": case(
            (ack.progress.is_not(None), dialect.set_keys(meta, {"progress": ack.progress})), else_=meta
        ),
        "scheduled_at": case(
            (and_(ack.delay.is_not(None), ~is_discarded), dialect.now_plus(ack.delay)),
            else_=_job.scheduled_at,
        ),
        "completed_at": now_if(outcome_is["completed"], _job.completed_at),
        "cancelled_at": now_if(outcome_is["cancelled"], _job.cancelled_at),
        "discarded_at": now_if(is_discarded, _job.discarded_at),
    }
    reported = {
        "attempt": ack.attempt,
        "outcome": ack.outcome,
        "error": ack.error,
        "log": dialect.json_document(ack.log),
        "progress": dialect.json_document(ack.progress),
        "trace": ack.trace,
    }
    return _acknowledgement(dialect, conditions, values, reported if history else None)


def _add_errors_of_cancelled(tx: Transaction, acks: list[Ack]) -> None:
    """Add the errors of runs to those of their jobs that were cancelled while they executed."""
    if not acks:
        return
    dialect = tx.dialect
    rows = tx.execute(
        select(_job.id, _job.attempt, _job.attempted_by, _job.errors)
        .where(
            dialect.in_ids(_job.id, dialect.id_list()),
            dialect.unindexed_state(_job.state) == sql_literal("cancelled"),
        )
        .order_by(_job.id)
        .with_for_update(),
        {"ids": [ack.id for ack in acks]},
    )
    cancelled = {row.id: row for row in rows}
    for ack in acks:
        job = cancelled.get(ack.id)
        if job is None or job.attempt != ack.attempt or job.attempted_by[1:] != [ack.owner]:
            continue
        # The acknowledgement may be repeated, if the answer to the first one was lost.
        errors = job.errors if isinstance(job.errors, list) else []
        if any(isinstance(entry, dict) and entry.get("attempt") == ack.attempt for entry in errors):
            continue
        appended = dialect.append_error(_job.errors, _job.attempt, literal(ack.error, Text))
        tx.execute(update(_jobs).where(_job.id == job.id).values(errors=appended))
