"""Which jobs a management call means: ids, instances or a `select(Job)`, turned into locked rows."""

import itertools
from collections.abc import Iterable
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

from oban import compat
from oban.database.transaction import Transaction
from oban.errors import InvalidTarget, NotEnqueued
from oban.models import Job
from oban.types import JobState

Target = Job | int
Targets = Iterable[Target] | Select[Any]

MAX_ID = 2**63 - 1
_TABLE: Any = Job.__table__
#: What `where(True)` leaves in a statement.
_ALWAYS: Any = select(Job.id).where(true()).whereclause
_moments = itertools.count(1)


@dataclass
class Selection:
    """The jobs that a call names: instances and ids, or a statement.

    The ids are looked up once the caller's session has been flushed, which gives jobs that were added
    to it theirs.
    """

    targets: list[Target] = field(default_factory=list)
    statement: Select[Any] | None = None
    #: Of two calls that locked the same row, the later one has more.
    locked_at: int = 0

    @cached_property
    def ids(self) -> list[int]:
        """The distinct ids in the order of the call; raises `NotEnqueued`."""
        return list(dict.fromkeys(map(parse_id, self.targets)))

    @cached_property
    def instances(self) -> dict[int, list[Job]]:
        """The instances that were passed, by id; the same job may be there in several."""
        instances: dict[int, list[Job]] = {}
        for target in self.targets:
            if isinstance(target, Job):
                instances.setdefault(parse_id(target), []).append(target)
        return instances


def parse(targets: Targets) -> Selection:
    """Check what was passed. Raises `InvalidTarget` or `NotEnqueued`, before any row is touched."""
    if isinstance(targets, Select):
        return Selection(statement=_checked(targets))
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
        # Not target.id: on an instance that a commit has expired, that would go to the database.
        state = inspect(target)
        if state.identity is None:
            raise NotEnqueued(f"{target!r} was never enqueued, so it has no id")
        return int(state.identity[0])
    if isinstance(target, int) and not isinstance(target, bool):
        return target
    raise InvalidTarget(f"a Job or an integer id is needed, not {target!r}")


def _checked(statement: Select[Any]) -> Select[Any]:
    described = statement.column_descriptions
    entity = described[0].get("entity") if len(described) == 1 else None
    try:
        ours = entity is not None and described[0]["expr"] is entity
        ours = ours and issubclass(inspect(entity).mapper.class_, Job)
    except NoInspectionAvailable:
        ours = False
    if not ours:
        raise InvalidTarget(
            "the statement must be a select(Job), of Job and nothing else; other tables are joined:"
            " select(Job).join(Order, …).where(…)"
        )
    return statement


def check_delete(targets: object, everything: bool) -> None:
    """Refuse a statement that takes every job, unless that was said: `InvalidTarget`."""
    if not isinstance(targets, Select):
        if everything:
            raise InvalidTarget("everything=True goes with a select(Job)")
    elif not everything and _takes_all(_checked(targets)):
        raise InvalidTarget(
            "the select(Job) has no condition: it would delete every job that is not executing. If that is"
            " meant, pass everything=True"
        )


def _takes_all(statement: Select[Any]) -> bool:
    condition = statement.whereclause
    if condition is not None and not condition.compare(_ALWAYS):
        return False
    if compat.is_limited(statement):
        return False
    froms = statement.get_final_froms()
    return len(froms) == 1 and _is_whole(froms[0])


def _is_whole(source: Any) -> bool:
    """Whether there is a row for each of our table; an outer join leaves none out."""
    if isinstance(source, Join):
        return source.isouter and _is_whole(source.left)
    return isinstance(source.element if isinstance(source, Alias) else source, Table)


def find(tx: Transaction, statement: Select[Any], locks: bool = False) -> Result[Any]:
    """Run a statement of the caller's, that names Oban's tables and others; `locks` if it locks rows.

    A schema that is put in for none would be put in for all tables, the application's too. So the name
    that `select(Job)` uses is given, within the statement, to the table of the schema.
    """
    prefix = tx.prefix
    theirs = tx.mapped_schema() if prefix else None
    # What only has a name for a while cannot be locked.
    if locks or not prefix or theirs == prefix:
        return tx.orm_execute(statement)
    if theirs is not None:
        raise InvalidTarget(
            f"the session's schema_translate_map says {theirs!r} for tables without a schema, but this Oban's"
            f" are in {prefix!r}"
        )
    ours = table(_TABLE.name, *(column(each.name) for each in _TABLE.columns), schema=prefix)
    # Recursive in name only: then others of the statement may use it, in whatever order they come.
    named = select(*ours.c).cte(_TABLE.name, recursive=True).prefix_with("NOT MATERIALIZED")
    return tx.session.execute(statement.add_cte(named))


def look(tx: Transaction, statement: Select[Any]) -> list[Job]:
    """The jobs that a statement of the caller's gives, each once."""
    return list(find(tx, statement, _locks(statement)).scalars().unique())


def lock_statement(
    tx: Transaction, named: Selection, *columns: Any
) -> tuple[Select[Any], list[int], dict[int, str]]:
    """A statement that locks the named jobs in id order, its ids, and how their rows were when found.

    It selects `columns` and, last, the version of the row.
    """
    dialect = tx.dialect
    dialect.begin_write(tx.connection())
    seen: dict[int, str] = {}
    ids = named.ids
    if named.statement is not None:
        rows = named.statement.subquery()
        prefix = tx.prefix
        locks = _locks(named.statement)
        whole = _TABLE.alias("named")
        if prefix and not locks:
            whole = table(_TABLE.name, column("id"), schema=prefix)
        found = select(whole.c.id, dialect.version()).where(whole.c.id.in_(select(rows.c.id)))
        ids = sorted(seen := dict(map(tuple, find(tx, found, locks))))
    statement = (
        select(*columns, dialect.version())
        .where(dialect.in_ids(Job.id, dialect.id_list()))
        .order_by(Job.id)
        .with_for_update(of=Job)
        # An application's relationships may say that they come along: not their tables, not locked.
        .options(lazyload("*"))
    )
    # An id that a bigint cannot hold belongs to no job.
    return statement, [id_ for id_ in ids if 0 < id_ <= MAX_ID], seen


def lock(
    tx: Transaction, named: Selection, states: Iterable[JobState]
) -> list[Row[tuple[int, JobState, str]]]:
    """Lock the named jobs that are in one of some states, in id order: their id, state and queue."""
    statement, ids, seen = lock_statement(tx, named, Job.id, Job.state, Job.queue)
    state = tx.dialect.unindexed_state(Job.state)
    statement = statement.where(state.in_([each.value for each in states]))
    rows = list(tx.orm_execute(statement, {"ids": ids}).all())
    meant = recheck(tx, named, seen, {row.id: row[3] for row in rows})
    return [row for row in rows if row.id in meant]


def recheck(tx: Transaction, named: Selection, seen: dict[int, str], locked: dict[int, str]) -> set[int]:
    """Which of some locked ids are meant, now that nobody can change them any more.

    Both `seen` and `locked` hold the version of each row. A statement may have found a row before a
    transaction changed it that the lock then waited for.
    """
    named.locked_at = next(_moments)
    changed = [id_ for id_, version in locked.items() if seen.get(id_, version) != version]
    if named.statement is None or not changed:
        return set(locked)
    dialect = tx.dialect
    # Not what it limits by: asked again, that may give other rows.
    rows = named.statement.limit(None).offset(None).subquery()
    again = select(rows.c.id).where(dialect.in_ids(rows.c.id, dialect.id_list()))
    meant = find(tx, again.params(ids=changed), _locks(named.statement)).scalars()
    return set(locked) - set(changed) | set(meant)


def _locks(statement: Select[Any]) -> bool:
    return compat.locks_rows(statement)
