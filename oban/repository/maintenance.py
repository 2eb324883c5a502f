"""What the leader does to jobs that nobody runs: rescue, sweep, prune. Safe when two do it at once."""

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, cast
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    Float,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import Session

from oban import dialects
from oban.config import Retention
from oban.dialects.base import Dialect, constant
from oban.models import Job, Producer
from oban.repository.execution import Ack, acknowledge
from oban.repository.transaction import execute
from oban.types import JobState

_jobs = cast(Table, Job.__table__)
_job = _jobs.c
_producer = cast(Table, Producer.__table__).c

#: Jobs that one statement rescues or sweeps.
BATCH = 500


class Rescued(NamedTuple):
    """A job that was taken from a node that is gone."""

    id: int
    worker: str
    node: str
    #: Whether its last attempt was interrupted, so that it was discarded.
    discarded: bool


def _plain(uuid: Any) -> ColumnElement[str]:
    # With dashes or without, as databases keep them.
    return func.replace(sql_cast(uuid, Text), constant("-"), constant(""))


@functools.cache
def _orphans(dialect: Dialect) -> Select[Any]:
    owner = _plain(dialect.second(_job.attempted_by))
    row = select(_producer.uuid).where(_plain(_producer.uuid) == owner)
    silent = dialect.earlier(bindparam("lease", type_=Float))
    aged = dialect.earlier(bindparam("age", type_=Float))
    # A row by hand may lack it; then the job is as old as its time to start.
    since = func.coalesce(_job.attempted_at, _job.scheduled_at)
    return (
        select(_job.id, _job.worker, _job.attempt, _job.max_attempts, _job.meta, _job.attempted_by)
        .where(
            _job.state == dialect.state("executing"),
            # Also of the job: a node that wakes up may fetch before its heart beats again.
            since <= silent,
            or_(
                and_(exists(row), ~exists(row.where(_producer.updated_at > silent))),
                and_(
                    ~exists(row),
                    or_(since <= aged, owner.in_(bindparam("gone", expanding=True, type_=Text))),
                ),
            ),
        )
        .order_by(_job.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True, of=_jobs)
    )


def orphans(
    session: Session, lease: float, age: float, gone: Collection[UUID] = (), after: int = 0
) -> list[int]:
    """The ids, beyond `after`, of what `rescue` would take; at most `BATCH`."""
    return [row.id for row in _find(session, lease, age, gone, _job.id > after)]


def _find(
    session: Session, lease: float, age: float, gone: Collection[UUID], *where: ColumnElement[bool]
) -> Sequence[Any]:
    statement = _orphans(dialects.of(session)).where(*where)
    return execute(
        session, statement, {"lease": lease, "age": age, "gone": [uuid.hex for uuid in gone]}
    ).all()


def rescue(
    session: Session,
    lease: float,
    age: float,
    gone: Collection[UUID] = (),
    only: int | None = None,
    sure: Callable[[], bool] = lambda: True,
) -> list[Rescued]:
    """Take executing jobs, or `only` one, from producers that were silent for `lease` seconds.

    They become available, with `meta["rescued"]` + 1, or are discarded with a reason, if the
    interrupted attempt was the last. A producer without a row is not one of ours, unless it is in
    `gone` (its row was there, and has vanished): the jobs of others are rescued when they have run
    for `age` seconds. At most `BATCH` at a time, and none unless `sure()`, which is asked when they
    are locked.
    """
    acks, rescued = [], []
    which = () if only is None else (_job.id == only,)
    for id_, worker, attempt, max_attempts, meta, attempted_by in _find(session, lease, age, gone, *which):
        node, owner = _names(attempted_by)
        before = meta.get("rescued") if isinstance(meta, dict) else None
        count = before + 1 if isinstance(before, int) and 0 <= before < 2**31 else 1
        last = attempt >= max_attempts
        error = (
            f"the node {node!r} was lost while it ran attempt {attempt} of {max_attempts}" if last else None
        )
        acks.append(Ack(id_, attempt, owner, "rescued", error=error, rescued=count))
        rescued.append(Rescued(id_, worker, node, last))
    # The lock may have taken so long that the producers, too, could not say that they are alive.
    if not sure():
        return []
    acknowledge(session, acks)
    return rescued


def _names(attempted_by: object) -> tuple[str, str]:
    """Node and owner as `Dialect.second` sees them, also in a list that another program made."""
    listed = attempted_by if isinstance(attempted_by, list) else []
    node, owner = (name if isinstance(name, str) else "" for name in (*listed, None, None)[:2])
    return node, owner


@functools.cache
def _forget(dialect: Dialect) -> Executable:
    producers = cast(Table, Producer.__table__)
    owned = select(_job.id).where(
        _job.state == dialect.state("executing"),
        _plain(dialect.second(_job.attempted_by)) == _plain(_producer.uuid),
    )
    cutoff = dialect.earlier(bindparam("lease", type_=Float))
    return delete(producers).where(_producer.updated_at <= cutoff, ~exists(owned)).returning(_producer.uuid)


def forget(session: Session, lease: float) -> set[UUID]:
    """Remove producers that were not heard of for `lease` seconds and own no job any more."""
    return set(execute(session, _forget(dialects.of(session)), {"lease": lease}).scalars())


@functools.cache
def _sweep(dialect: Dialect) -> Executable:
    # Spelt as in the partial index.
    spent = (
        select(_job.id)
        .where(_job.state == dialect.state("available"), _job.attempt >= _job.max_attempts)
        .order_by(_job.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    reason = literal("available with no attempt left: it could never run", Text)
    return (
        update(_jobs)
        .where(dialect.picked(_job.id, spent))
        .values(
            state=dialect.state("discarded"),
            discarded_at=dialect.now(),
            errors=dialect.append_error(_job.errors, _job.attempt, reason),
        )
        .returning(_job.id)
    )


def sweep(session: Session) -> list[int]:
    """Discard available jobs that have no attempt left, with a reason; the ids, at most `BATCH`."""
    return list(execute(session, _sweep(dialects.of(session))).scalars())


class Rule(NamedTuple):
    """Which finished jobs are kept for how long: seconds since they finished."""

    state: JobState
    seconds: float
    #: Queues or workers that the rule is for, and those that it leaves to other rules.
    queue: str | None = None
    worker: str | None = None
    other_queues: Sequence[str] = ()
    other_workers: Sequence[str] = ()


def rules(retention: Retention) -> list[Rule]:
    """The statements that a retention amounts to. A worker's own counts before that of a queue."""
    queues, workers = tuple(retention.queues), tuple(retention.workers)
    made = []
    for state in (JobState.COMPLETED, JobState.CANCELLED, JobState.DISCARDED):

        def add(kept: Retention, state: JobState = state, **which: Any) -> None:
            seconds = getattr(kept, state.value)
            if seconds is not None:
                made.append(Rule(state, seconds, **which))

        add(retention, other_queues=queues, other_workers=workers)
        for queue, kept in retention.queues.items():
            add(kept, queue=queue, other_workers=workers)
        for worker, kept in retention.workers.items():
            add(kept, worker=worker)
    return made


def prune(session: Session, rule: Rule, limit: int) -> int:
    """Delete jobs that have been kept long enough, the oldest first, at most `limit`; their number."""
    dialect = dialects.of(session)
    ended = _job[f"{rule.state.value}_at"]
    old = (
        select(_job.id)
        .where(
            _job.state == dialect.state(rule.state.value),
            ended <= dialect.earlier(literal(rule.seconds, Float)),
            *([_job.queue == rule.queue] if rule.queue is not None else []),
            *([_job.worker == rule.worker] if rule.worker is not None else []),
            *([_job.queue.not_in(rule.other_queues)] if rule.other_queues else []),
            *([_job.worker.not_in(rule.other_workers)] if rule.other_workers else []),
        )
        .order_by(ended)
        .limit(literal(limit, BigInteger))
        .with_for_update(skip_locked=True)
    )
    statement = delete(_jobs).where(dialect.picked(_job.id, old)).returning(_job.id)
    return len(execute(session, statement).all())
