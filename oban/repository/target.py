"""Which jobs a management call means: ids, instances or a `select(Job)`, turned into one condition."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, inspect, select
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Session, attributes

from oban import dialects
from oban.errors import InvalidTarget, NotEnqueued
from oban.models import Job
from oban.repository.session import execute, when_stored
from oban.types import JobState

Target = Job | int
Targets = Iterable[Target] | Select[Any]

_MAX_ID = 2**63 - 1


@dataclass(slots=True)
class Named:
    """The jobs that a call names: distinct ids in the order given, or a statement."""

    ids: list[int] = field(default_factory=list)
    statement: Select[Any] | None = None
    #: The instances that were passed, by id; the same job may be there in several.
    instances: dict[int, list[Job]] = field(default_factory=dict)

    def condition(self, session: Session) -> tuple[ColumnElement[bool], dict[str, Any]]:
        """A condition on `Job` and its parameters."""
        if self.statement is not None:
            rows = self.statement.subquery()
            return Job.id.in_(select(rows.c[Job.__table__.c.id.key])), {}
        dialect = dialects.of(session)
        # An id that a bigint cannot hold belongs to no job.
        known = [id_ for id_ in self.ids if 0 < id_ <= _MAX_ID]
        return dialect.among(Job.id, dialect.id_list()), {"ids": known}


def parse(targets: Targets) -> Named:
    """Check what was passed. Raises `InvalidTarget` or `NotEnqueued`, before any row is touched."""
    if isinstance(targets, Select):
        return Named(statement=_checked(targets))
    if isinstance(targets, (str, bytes, dict, Job, int)) or not isinstance(targets, Iterable):
        raise InvalidTarget(
            f"a list of jobs or ids, or a select(Job), is needed, not {type(targets).__name__}"
        )
    named = Named()
    ids: dict[int, None] = {}
    for target in targets:
        id_ = parse_id(target)
        ids[id_] = None
        if isinstance(target, Job):
            named.instances.setdefault(id_, []).append(target)
    named.ids = list(ids)
    return named


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
        ours = ours and inspect(entity).mapper.class_ is Job
    except NoInspectionAvailable:
        ours = False
    if not ours:
        raise InvalidTarget("the statement must be a select(Job), of Job and nothing else")
    return statement


def lock(session: Session, named: Named, states: Iterable[JobState]) -> list[Row[tuple[int, JobState, str]]]:
    """Lock the named jobs that are in one of some states, in id order: their id, state and queue."""
    dialect = dialects.of(session)
    dialect.begin_write(session)
    condition, parameters = named.condition(session)
    statement = (
        select(Job.id, Job.state, Job.queue)
        .where(condition, dialect.plain_state(Job.state).in_([state.value for state in states]))
        .order_by(Job.id)
        .with_for_update(of=Job)
    )
    rows = list(execute(session, statement, parameters).all())
    still = still_named(session, named, [row.id for row in rows])
    return [row for row in rows if row.id in still]


def still_named(session: Session, named: Named, locked: list[int]) -> set[int]:
    """Which of some locked ids are meant, now that nobody can change them any more.

    A statement may have found a row before a transaction changed it that the lock then waited for.
    """
    dialect = dialects.of(session)
    if named.statement is None or not locked or dialect.single_writer:
        return set(locked)
    # Not what it orders and limits by: asked again, that may give other rows.
    plain = Named(statement=named.statement.order_by(None).limit(None).offset(None))
    condition, _ = plain.condition(session)
    statement = select(Job.id).where(dialect.among(Job.id, dialect.id_list()), condition)
    return set(execute(session, statement, {"ids": locked}).scalars())


def refresh(session: Session, named: Named, ids: Iterable[int]) -> None:
    """Let the instances that were passed, and those in the session, show the rows as they are now."""
    changed = set(ids)
    held = {job.id for job in _held(session) if job.id in changed}
    if wanted := sorted(held | (named.instances.keys() & changed)):
        dialect = dialects.of(session)
        statement = select(Job).where(dialect.among(Job.id, dialect.id_list()))
        rows = execute(session, statement, {"ids": wanted}, populate_existing=True).scalars().all()
        when_stored(session, lambda: show(named, rows))


def show(named: Named, rows: Iterable[Job]) -> None:
    """Let the instances that were passed show some rows, as if they had been loaded now."""
    for row in rows:
        for instance in named.instances.get(row.id, ()):
            if instance is not row:
                for column in inspect(Job).column_attrs:
                    attributes.set_committed_value(instance, column.key, getattr(row, column.key))


def _held(session: Session) -> list[Job]:
    return [job for job in session.identity_map.values() if isinstance(job, Job) and "id" in job.__dict__]
