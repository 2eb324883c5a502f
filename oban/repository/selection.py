"""Which jobs a call applies to: ids, jobs or a `select(Job)`, turned into locked rows."""

import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sqlalchemy import (
    Alias,
    CompoundSelect,
    Join,
    Result,
    Row,
    Select,
    Table,
    column,
    inspect,
    select,
    table,
    true,
)
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import lazyload

from oban import compat, display
from oban.database.transaction import Transaction
from oban.errors import InvalidTarget, NotEnqueued
from oban.models import Job
from oban.repository.unique_changes import claim_keys, no_keys
from oban.types import JobState

#: A job, or the id of one.
Target = Job | int
#: Jobs and ids, or a `select(Job)`.
Targets = Iterable[Target] | Select[Any]

#: The largest id of a bigint column.
MAX_ID = 2**63 - 1
_TABLE: Any = Job.__table__
#: The condition of a statement with `where(True)`.
_TRUE: Any = select(Job.id).where(true()).whereclause
_lock_numbers = itertools.count(1)


@dataclass
class Selection:
    """The jobs that a call names: by instances and ids, or by a statement."""

    targets: list[Target] = field(default_factory=list)
    statement: Select[Any] | None = None
    #: Set by `lock`: the distinct ids in the order of the call, or those that the statement has found.
    found: Sequence[int] = ()
    #: Set by `lock` with `claims_keys`: the keys that it has claimed.
    claimed: Collection[str] = ()
    #: Set by `lock`. Of two calls that locked the same row, the later one has the larger number.
    locked_at: int = 0

    # Computed once the caller's session has been flushed, which gives ids to the jobs that were added to it.
    @cached_property
    def ids(self) -> list[int]:
        """The distinct ids in the order of the call; raises `NotEnqueued`."""
        return list(dict.fromkeys(map(parse_id, self.targets)))

    @cached_property
    def instances(self) -> dict[int, list[Job]]:
        """The instances that were passed, by id; there can be several of a job."""
        instances: dict[int, list[Job]] = {}
        for target in self.targets:
            if isinstance(target, Job):
                instances.setdefault(parse_id(target), []).append(target)
        return instances


def parse(targets: Targets) -> Selection:
    """Check which jobs a caller has passed, before any row is touched.

    Raises `InvalidTarget`, or `NotEnqueued` for a job that has no id and is not in a session.
    """
    if isinstance(targets, Select):
        check_statement(targets)
        return Selection(statement=targets)
    if isinstance(targets, CompoundSelect):
        raise InvalidTarget(
            "a select(Job) is needed, not CompoundSelect; use select(Job).where(Job.id.in_(the union of ids))"
        )
    if isinstance(targets, (str, bytes, dict, Job, int)) or not isinstance(targets, Iterable):
        raise InvalidTarget(
            f"a list of jobs or ids, or a select(Job), is needed, not {type(targets).__name__}"
        )
    selection = Selection(targets=list(targets))
    for target in selection.targets:
        if not (isinstance(target, Job) and inspect(target).pending):
            parse_id(target)
    return selection


def parse_id(target: object) -> int:
    """The id of a `Job` or an id itself; raises `InvalidTarget` or `NotEnqueued`."""
    if isinstance(target, Job):
        # `target.id` would query the database if a commit has expired the instance.
        state = inspect(target)
        if state.identity is None:
            raise NotEnqueued(f"{target!r} was never enqueued, so it has no id")
        return int(state.identity[0])
    if isinstance(target, int) and not isinstance(target, bool):
        # The text of a member of an enum is its name.
        return int(target)
    raise InvalidTarget(f"a Job or an integer id is needed, not {display.shown(target)}")


def check_statement(statement: object) -> None:
    """Raise `InvalidTarget` for anything but a `select(Job)`."""
    if not isinstance(statement, Select):
        raise InvalidTarget(f"a select(Job) is needed, not {type(statement).__name__}")
    described = statement.column_descriptions
    entity = described[0].get("entity") if len(described) == 1 else None
    try:
        is_job = entity is not None and described[0]["expr"] is entity
        is_job = is_job and issubclass(inspect(entity).mapper.class_, Job)
    except NoInspectionAvailable:
        is_job = False
    if not is_job:
        raise InvalidTarget(
            "the statement must be a select(Job), of Job and nothing else; join other tables:"
            " select(Job).join(Order, …).where(…)"
        )


def parse_many(targets: Targets, everything: bool, action: str) -> Selection:
    """Check targets as `parse` does; a statement that selects every job is allowed only with `everything`.

    `action` says for the error what the call does to each job.
    """
    selection = parse(targets)
    if selection.statement is None:
        if everything:
            raise InvalidTarget("everything=True goes with a select(Job)")
    elif not everything and _selects_all(selection.statement):
        raise InvalidTarget(
            f"the select(Job) has no condition: it would {action} every job. To do that, pass everything=True"
        )
    return selection


def _selects_all(statement: Select[Any]) -> bool:
    condition = statement.whereclause
    if condition is not None and not condition.compare(_TRUE):
        return False
    if compat.is_limited(statement):
        return False
    froms = statement.get_final_froms()
    return len(froms) == 1 and _has_every_job(froms[0])


def _has_every_job(source: Any) -> bool:
    if isinstance(source, Join):
        return source.isouter and _has_every_job(source.left)
    return isinstance(source.element if isinstance(source, Alias) else source, Table)


def load_jobs(tx: Transaction, statement: Select[Any]) -> list[Job]:
    """The jobs that a caller's statement selects, each once."""
    # All of them are loaded at once, and rows that are fetched in parts cannot be made unique.
    statement = statement.execution_options(yield_per=None)
    return list(execute_select(tx, statement, compat.locks_rows(statement)).scalars().unique())


def execute_select(tx: Transaction, statement: Select[Any], locks_rows: bool) -> Result[Any]:
    """Run a caller's statement, which names Oban's tables and can name the application's.

    A `schema_translate_map` would look for all of them in Oban's schema. So, with a prefix, a CTE of the name
    that `select(Job)` uses takes the place of the table, unless the statement locks rows: those of a CTE
    cannot be locked.
    """
    prefix = tx.prefix
    mapped_schema = tx.mapped_schema() if prefix else None
    if locks_rows or not prefix or mapped_schema == prefix:
        return tx.orm_execute(statement)
    if mapped_schema is not None:
        raise InvalidTarget(
            f"the session's schema_translate_map maps tables without a schema to {mapped_schema!r}, but"
            f" this Oban's tables are in {prefix!r}"
        )
    jobs = table(_TABLE.name, *(column(each.name) for each in _TABLE.columns), schema=prefix)
    # It is not recursive, but only in WITH RECURSIVE can the statement's own CTEs come before it.
    cte = select(*jobs.c).cte(_TABLE.name, recursive=True).prefix_with("NOT MATERIALIZED")
    return tx.session_execute(statement.add_cte(cte))


def lock(
    tx: Transaction,
    selection: Selection,
    *columns: Any,
    states: Iterable[JobState] | None = None,
    claims_keys: bool = False,
    **options: Any,
) -> Sequence[Row[Any]]:
    """Lock the selected jobs, or those of them in some states, in id order.

    Two calls for the same jobs then wait for each other instead of deadlocking. Each row has `id`, `version`
    and then `columns`; `options` are execution options. With `claims_keys`,
    the keys of the jobs are claimed before.
    """
    dialect = tx.dialect
    dialect.begin_write(tx.connection())
    found = {} if selection.statement is None else _find_versions(tx, selection.statement)
    ids = selection.found = selection.ids if selection.statement is None else sorted(found)
    statement = (
        select(Job.id, dialect.version().label("version"), *columns)
        .where(dialect.in_ids(Job.id, dialect.id_list()))
        .order_by(Job.id)
        .with_for_update(of=Job)
        # Without the application's relationships that are always loaded.
        .options(lazyload("*"))
    )
    if states is not None:
        state = dialect.unindexed_state(Job.state)
        statement = statement.where(state.in_([each.value for each in states]))
    ids = [id_ for id_ in ids if 0 < id_ <= MAX_ID]
    if claims_keys and not dialect.single_writer:
        # Jobs without keys are locked at once. If any has one, the statement finds and locks nothing.
        rows = tx.orm_execute(statement.where(no_keys(dialect)), {"ids": ids}, **options).all()
        selection.claimed = () if rows or not ids else claim_keys(tx, ids)
        if selection.claimed:
            rows = tx.orm_execute(statement, {"ids": ids}, **options).all()
    else:
        rows = tx.orm_execute(statement, {"ids": ids}, **options).all()
    selection.locked_at = next(_lock_numbers)
    # The lock may have waited for a transaction that changed a row after the statement had found it.
    changed = {row.id for row in rows if found.get(row.id, row.version) != row.version}
    if selection.statement is None or not changed:
        return rows
    matching = _select_again(tx, selection.statement, changed)
    return [row for row in rows if row.id not in changed or row.id in matching]


def _find_versions(tx: Transaction, statement: Select[Any]) -> dict[int, str]:
    """The ids that a caller's statement selects, with the version of each row."""
    selected = statement.subquery()
    locks_rows = compat.locks_rows(statement)
    jobs = _TABLE.alias("versions")
    if tx.prefix and not locks_rows:
        # The CTE of `execute_select` has no versions.
        jobs = table(_TABLE.name, column("id"), schema=tx.prefix)
    versions = select(jobs.c.id, tx.dialect.version()).where(jobs.c.id.in_(select(selected.c.id)))
    return dict(map(tuple, execute_select(tx, versions, locks_rows)))


def _select_again(tx: Transaction, statement: Select[Any], ids: Iterable[int]) -> set[int]:
    """Return the ids among locked ones that a caller's statement still selects."""
    # Without its limit, within which there may be other rows by now.
    selected = statement.limit(None).offset(None).subquery()
    again = select(selected.c.id).where(tx.dialect.in_ids(selected.c.id, tx.dialect.id_list()))
    result = execute_select(tx, again.params(ids=sorted(ids)), compat.locks_rows(statement))
    return set(result.scalars())
