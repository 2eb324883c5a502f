"""What the leader does to jobs that nobody runs: rescue, sweep, prune. Safe when two do it at once."""

import functools
import math
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    Float,
    Select,
    Text,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    update,
)

from oban.config import Retention
from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.models import Job, Producer
from oban.repository.acknowledge import Ack, acknowledge
from oban.repository.cluster import stale_producers, uuid_digits
from oban.types import JobState, TextList

_jobs = Job.__table__
_job = _jobs.c
_producers = Producer.__table__
_producer = _producers.c

#: Jobs that one statement rescues or sweeps.
BATCH = 500


class Rescued(NamedTuple):
    """A job that was taken from a node that is gone."""

    id: int
    worker: str
    node: str
    #: Whether its last attempt was interrupted, so that it was discarded.
    discarded: bool


ObservedFor = Callable[[datetime], float]


def _always(_: datetime) -> float:
    return math.inf


def _one_of(dialect: Dialect, owner: ColumnElement[str], name: str) -> ColumnElement[bool]:
    return dialect.in_ids(owner, bindparam(name, type_=TextList))


@functools.cache
def _orphans(dialect: Dialect) -> Select[Any]:
    owner = uuid_digits(dialect.second_element(_job.attempted_by))
    row = select(_producer.uuid).where(uuid_digits(_producer.uuid) == owner)
    recent = dialect.now_minus(bindparam("lease", type_=Float))
    too_old = dialect.now_minus(bindparam("max_age", type_=Float))
    # A row by hand may lack it; then the job is as old as its time to start.
    since = func.coalesce(_job.attempted_at, _job.scheduled_at)
    return (
        select(_job.id, _job.worker, _job.attempt, _job.max_attempts, _job.meta, _job.attempted_by)
        .where(
            _job.state == dialect.state("executing"),
            # Also of the job: a node that wakes up may fetch before its heart beats again.
            since <= recent,
            or_(
                _one_of(dialect, owner, "stale"),
                and_(~exists(row), or_(since <= too_old, _one_of(dialect, owner, "vanished"))),
            ),
        )
        # Not by the bare column, lest the planner walks the primary key of the whole table.
        .order_by(_job.id + literal_column("0"))
        .limit(BATCH)
        .with_for_update(skip_locked=True, of=_jobs)
    )


def orphans(
    tx: Transaction,
    lease: float,
    max_age: float,
    vanished: Collection[UUID] = (),
    after: int = 0,
    observed_for: ObservedFor = _always,
) -> list[int]:
    """The ids, greater than `after`, of the jobs that `rescue` would take; up to `BATCH` of them."""
    return [row.id for row in _find(tx, lease, max_age, vanished, observed_for, _job.id > after)]


def _find(
    tx: Transaction,
    lease: float,
    max_age: float,
    vanished: Collection[UUID],
    observed_for: ObservedFor,
    *where: ColumnElement[bool],
) -> Sequence[Any]:
    parameters = {
        "lease": lease,
        "max_age": max_age,
        "vanished": [uuid.hex for uuid in vanished],
        "stale": stale_producers(tx, lease, observed_for),
    }
    return tx.execute(_orphans(tx.dialect).where(*where), parameters).all()


def rescue(
    tx: Transaction,
    lease: float,
    max_age: float,
    vanished: Collection[UUID] = (),
    only: Sequence[int] | None = None,
    still_steady: Callable[[], bool] = lambda: True,
    observed_for: ObservedFor = _always,
) -> list[Rescued]:
    """Take executing jobs, or `only` those with some ids, from stale producers; up to `BATCH` of them.

    They become available, with `meta["rescued"]` + 1; a job whose last attempt was interrupted is
    discarded with a reason. `lease` and `observed_for` decide which producers are stale (see
    `cluster.stale_producers`). A producer in `vanished` counts as stale: it had a row and lost it. Jobs
    of producers that never had a row, as in some other implementations, are rescued when they have run
    for `max_age` seconds. Nothing is rescued unless `still_steady()` is true once the jobs are locked.
    """
    tx.dialect.begin_write(tx.connection())
    acks, rescued = [], []
    which = () if only is None else (_job.id.in_(only),)
    found = _find(tx, lease, max_age, vanished, observed_for, *which)
    for id_, worker, attempt, max_attempts, meta, attempted_by in found:
        node, owner = _names(attempted_by)
        before = meta.get("rescued") if isinstance(meta, dict) else None
        count = before + 1 if isinstance(before, int) and 0 <= before < 2**31 else 1
        last = attempt >= max_attempts
        error = (
            f"the node {node!r} was lost while it ran attempt {attempt} of {max_attempts}" if last else None
        )
        acks.append(Ack(id_, attempt, owner, "rescued", error=error, rescued=count))
        rescued.append(Rescued(id_, worker, node, last))
    # Waiting for the lock may have taken so long that live producers could not send heartbeats either.
    if not still_steady():
        return []
    acknowledge(tx, acks)
    return rescued


def _names(attempted_by: object) -> tuple[str, str]:
    """Node and owner as `Dialect.second` sees them, also in a list that another program made."""
    listed = attempted_by if isinstance(attempted_by, list) else []
    node, owner = (name if isinstance(name, str) else "" for name in (*listed, None, None)[:2])
    return node, owner


@functools.cache
def _delete_stale(dialect: Dialect) -> Executable:
    owned = select(_job.id).where(
        _job.state == dialect.state("executing"),
        uuid_digits(dialect.second_element(_job.attempted_by)) == uuid_digits(_producer.uuid),
    )
    return (
        delete(_producers)
        .where(
            _one_of(dialect, uuid_digits(_producer.uuid), "stale"),
            # They may have sent a heartbeat since they were read.
            _producer.updated_at <= dialect.now_minus(bindparam("lease", type_=Float)),
            ~exists(owned),
        )
        .returning(_producer.uuid)
    )


def delete_stale_producers(tx: Transaction, lease: float, observed_for: ObservedFor = _always) -> set[UUID]:
    """Delete the rows of stale producers that have no executing job; returns their uuids."""
    dialect = tx.dialect
    dialect.begin_write(tx.connection())
    parameters = {"stale": stale_producers(tx, lease, observed_for), "lease": lease}
    return set(tx.execute(_delete_stale(dialect), parameters).scalars())


def _exhausted(dialect: Dialect) -> Select[Any]:
    # Spelt as in the partial index.
    available = dialect.hint_partial_index(_job.state == dialect.state("available"))
    exhausted = select(_job.id).where(available, _job.attempt >= _job.max_attempts)
    return exhausted.order_by(_job.id).limit(dialect.index_limit(literal(BATCH, BigInteger)))


@functools.cache
def _discard(dialect: Dialect, some: bool) -> Executable:
    exhausted = _exhausted(dialect).with_for_update(skip_locked=True)
    if some:
        exhausted = exhausted.where(dialect.in_ids(_job.id, dialect.id_list("only")))
    reason = literal("available with no attempt left: it could never run", Text)
    return (
        update(_jobs)
        .where(dialect.in_subquery(_job.id, exhausted))
        .values(
            state=dialect.state("discarded"),
            discarded_at=dialect.now(),
            errors=dialect.append_error(_job.errors, _job.attempt, reason),
        )
        .returning(_job.id)
    )


def exhausted(tx: Transaction, after: int = 0) -> list[int]:
    """The ids, greater than `after`, of the jobs that `discard_exhausted` would discard; up to `BATCH`."""
    statement = _exhausted(tx.dialect).where(_job.id > after)
    return list(tx.execute(statement).scalars())


def discard_exhausted(tx: Transaction, only: Sequence[int] | None = None) -> list[int]:
    """Discard available jobs that have no attempt left, with a reason; the ids, at most `BATCH`."""
    statement = _discard(tx.dialect, only is not None)
    return list(tx.execute(statement, {} if only is None else {"only": only}).scalars())


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


def prunable(
    tx: Transaction, rule: Rule, limit: int, past: tuple[datetime, int] | None = None
) -> list[tuple[datetime, int]]:
    """What `prune` would delete: when each job finished, and its id."""
    ended = _job[f"{rule.state.value}_at"]
    dialect = tx.dialect
    statement = _expired(dialect, rule, limit, past, None).add_columns(ended).order_by(_job.id)
    return [(row[1], row[0]) for row in tx.execute(statement)]


def prune(
    tx: Transaction,
    rule: Rule,
    limit: int,
    past: tuple[datetime, int] | None = None,
    only: Sequence[int] | None = None,
) -> int:
    """Delete jobs that have been kept long enough, the oldest first, at most `limit`; their number.

    Of those that finished later than `past`, which is such a time and an id, or `only` of some ids.
    """
    dialect = tx.dialect
    old = _expired(dialect, rule, limit, past, only).with_for_update(skip_locked=True)
    statement = delete(_jobs).where(dialect.in_subquery(_job.id, old)).returning(_job.id)
    parameters = {} if only is None else {"only": only}
    return len(tx.execute(statement, parameters).all())


def _expired(
    dialect: Dialect,
    rule: Rule,
    limit: int,
    past: tuple[datetime, int] | None,
    only: Sequence[int] | None,
) -> Select[Any]:
    ended = _job[f"{rule.state.value}_at"]
    statement = select(_job.id).where(
        dialect.hint_partial_index(_job.state == dialect.state(rule.state.value)),
        ended <= dialect.now_minus(literal(rule.seconds, Float)),
        # In a form that no index on it serves: by the one on state and queue, all that ended would be sorted.
        *([(_job.queue == rule.queue).is_(true())] if rule.queue is not None else []),
        *([_job.worker == rule.worker] if rule.worker is not None else []),
        *([_job.queue.not_in(rule.other_queues)] if rule.other_queues else []),
        *([_job.worker.not_in(rule.other_workers)] if rule.other_workers else []),
        *([dialect.in_ids(_job.id, dialect.id_list("only"))] if only is not None else []),
    )
    if past is not None:
        at, id_ = past
        statement = statement.where(ended >= at, or_(ended > at, _job.id > id_))
    return statement.order_by(ended).limit(dialect.index_limit(literal(limit, BigInteger)))
