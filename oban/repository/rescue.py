"""Rescue: take executing jobs from dead nodes, and discard jobs that can never run.

`oban.runner.services.lifeline` explains which nodes count as dead. All functions skip rows that another node
has locked, so two leaders at once do no harm.
"""

import functools
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
    update,
)

from oban import encoding
from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.models import Job, Producer
from oban.progress import Progress
from oban.repository.acknowledge import Ack, acknowledge
from oban.repository.cluster import ObservedFor, always_observed, stale_producers, uuid_digits
from oban.repository.runs import owner_of
from oban.types import TextList

_jobs = Job.__table__
_job = _jobs.c
_producers = Producer.__table__
_producer = _producers.c

#: How many jobs one statement rescues or discards.
BATCH = 500


class Rescued(NamedTuple):
    """A job that was taken from a dead node."""

    id: int
    worker: str
    queue: str
    attempt: int
    max_attempts: int
    node: str
    #: Whether the job was discarded, because it has no attempt left.
    discarded: bool


def rescue(
    tx: Transaction,
    lease: float,
    max_age: float,
    vanished: Collection[UUID] = (),
    only: Sequence[int] | None = None,
    still_steady: Callable[[], bool] = lambda: True,
    observed_for: ObservedFor = always_observed,
) -> list[Rescued]:
    """Take executing jobs from stale producers, up to `BATCH` of them.

    They become available, with `meta["rescued"]` + 1. A job whose last attempt was interrupted is discarded,
    with a reason.

    Args:
        tx: A transaction.
        lease: Seconds; with `observed_for`, it decides which producers are stale (see `stale_producers`).
        max_age: Seconds that jobs of a producer without a row execute before they are rescued. Some other
            implementations store no rows.
        vanished: Producers whose rows were lost. They count as stale.
        only: Rescue only jobs with these ids.
        still_steady: Called once the jobs are locked; if it returns false, nothing is rescued.
        observed_for: See `stale_producers`.
    """
    tx.dialect.begin_write(tx.connection())
    acks, rescued = [], []
    conditions = () if only is None else (_job.id.in_(only),)
    orphans = _lock_orphans(tx, lease, max_age, vanished, observed_for, *conditions)
    for id_, worker, queue, attempt, max_attempts, meta, attempted_by, attempted_at in orphans:
        node, owner = _node_and_owner(attempted_by)
        before = meta.get("rescued") if isinstance(meta, dict) else None
        count = before + 1 if isinstance(before, int) and 0 <= before < 2**31 else 1
        is_last = attempt >= max_attempts
        reason = f"the node {node!r} was lost while it ran attempt {attempt} of {max_attempts}"
        error, progress = reason if is_last else None, _progress(meta, attempt, attempted_at)
        acks.append(Ack(id_, attempt, owner, "rescued", error, rescued=count, progress=progress))
        rescued.append(Rescued(id_, worker, queue, attempt, max_attempts, node, discarded=is_last))
    # The wait for the locks may have kept live producers from sending heartbeats, too.
    if not still_steady():
        return []
    acknowledge(tx, acks)
    return rescued


def orphans(
    tx: Transaction,
    lease: float,
    max_age: float,
    vanished: Collection[UUID] = (),
    after: int = 0,
    observed_for: ObservedFor = always_observed,
) -> list[int]:
    """The ids of the jobs that `rescue` would take and that are greater than `after`; up to `BATCH`."""
    return [row.id for row in _lock_orphans(tx, lease, max_age, vanished, observed_for, _job.id > after)]


def _lock_orphans(
    tx: Transaction,
    lease: float,
    max_age: float,
    vanished: Collection[UUID],
    observed_for: ObservedFor,
    *conditions: ColumnElement[bool],
) -> Sequence[Any]:
    parameters = {
        "lease": lease,
        "max_age": max_age,
        "vanished": [uuid.hex for uuid in vanished],
        "stale": stale_producers(tx, lease, observed_for),
    }
    return tx.execute(_orphans_statement(tx.dialect).where(*conditions), parameters).all()


@functools.cache
def _orphans_statement(dialect: Dialect) -> Select[Any]:
    owner = uuid_digits(owner_of(dialect))
    producer_row = select(_producer.uuid).where(uuid_digits(_producer.uuid) == owner)
    lease_ago = dialect.now_minus(bindparam("lease", type_=Float))
    max_age_ago = dialect.now_minus(bindparam("max_age", type_=Float))
    # A row that another program made executing may have no `attempted_at`.
    started_at = func.coalesce(_job.attempted_at, _job.scheduled_at)
    return (
        select(
            *(_job.id, _job.worker, _job.queue, _job.attempt, _job.max_attempts, _job.meta),
            *(_job.attempted_by, _job.attempted_at),
        )
        .where(
            _job.state == dialect.state("executing"),
            # A node that was frozen can fetch jobs before it sends its next heartbeat.
            started_at <= lease_ago,
            or_(
                _one_of(dialect, owner, "stale"),
                and_(
                    ~exists(producer_row),
                    or_(started_at <= max_age_ago, _one_of(dialect, owner, "vanished")),
                ),
            ),
        )
        # Ordered by the bare column, the planner would walk the primary key of the whole table.
        .order_by(_job.id + literal_column("0"))
        .limit(BATCH)
        .with_for_update(skip_locked=True, of=_jobs)
    )


def _one_of(dialect: Dialect, owner: ColumnElement[str], name: str) -> ColumnElement[bool]:
    return dialect.in_ids(owner, bindparam(name, type_=TextList))


def _progress(meta: object, attempt: int, attempted_at: object) -> str | None:
    """The last progress that the interrupted attempt has stored, as JSON text."""
    stored = meta.get("progress") if isinstance(meta, dict) else None
    progress = Progress.parse(stored)
    if progress is None or progress.attempt != attempt:
        return None
    # An attempt that was snoozed does not count, and the one after it has the same number.
    is_own = isinstance(attempted_at, datetime) and progress.at >= attempted_at
    return encoding.dumps(stored) if is_own else None


def _node_and_owner(attempted_by: object) -> tuple[str, str]:
    """The first two strings of `attempted_by`, empty if there are none; another program may have set it."""
    items = attempted_by if isinstance(attempted_by, list) else []
    node, owner = (item if isinstance(item, str) else "" for item in (*items, None, None)[:2])
    return node, owner


class DeadProducer(NamedTuple):
    """The row of a producer that was deleted, because its node is dead."""

    uuid: UUID
    instance: str
    node: str
    queue: str


def delete_stale_producers(
    tx: Transaction, lease: float, observed_for: ObservedFor = always_observed
) -> set[DeadProducer]:
    """Delete the rows of stale producers that have no executing job, and return them."""
    dialect = tx.dialect
    dialect.begin_write(tx.connection())
    parameters = {"stale": stale_producers(tx, lease, observed_for), "lease": lease}
    return {DeadProducer(*row) for row in tx.execute(_delete_stale_statement(dialect), parameters)}


@functools.cache
def _delete_stale_statement(dialect: Dialect) -> Executable:
    owned = select(_job.id).where(
        _job.state == dialect.state("executing"),
        uuid_digits(owner_of(dialect)) == uuid_digits(_producer.uuid),
    )
    return (
        delete(_producers)
        .where(
            _one_of(dialect, uuid_digits(_producer.uuid), "stale"),
            # It may have sent a heartbeat since its row was read.
            _producer.updated_at <= dialect.real_clock.now_minus(bindparam("lease", type_=Float)),
            ~exists(owned),
        )
        .returning(_producer.uuid, _producer.name, _producer.node, _producer.queue)
    )


def discard_exhausted(tx: Transaction, only: Sequence[int] | None = None) -> list[int]:
    """Discard up to `BATCH` available jobs that have no attempt left, with a reason; returns their ids.

    With `only`, only jobs with these ids.
    """
    tx.autocommit_next()
    statement = _discard_exhausted_statement(tx.dialect, only is not None)
    return list(tx.execute(statement, {} if only is None else {"only": only}).scalars())


def exhausted(tx: Transaction, after: int = 0) -> list[int]:
    """The ids of the jobs that `discard_exhausted` would discard and that are greater than `after`."""
    return list(tx.execute(_select_exhausted(tx.dialect).where(_job.id > after)).scalars())


@functools.cache
def _discard_exhausted_statement(dialect: Dialect, has_only: bool) -> Executable:
    ids = _select_exhausted(dialect).with_for_update(skip_locked=True)
    if has_only:
        ids = ids.where(dialect.in_ids(_job.id, dialect.id_list("only")))
    reason = literal("available with no attempt left: it could never run", Text)
    return (
        update(_jobs)
        .where(dialect.in_subquery(_job.id, ids))
        .values(
            state=dialect.state("discarded"),
            discarded_at=dialect.now(),
            errors=dialect.append_error(_job.errors, _job.attempt, reason),
        )
        .returning(_job.id)
    )


def _select_exhausted(dialect: Dialect) -> Select[Any]:
    # Written as in the partial index, which the planner otherwise does not use.
    is_available = dialect.hint_partial_index(_job.state == dialect.state("available"))
    ids = select(_job.id).where(is_available, _job.attempt >= _job.max_attempts)
    return ids.order_by(_job.id).limit(dialect.index_limit(literal(BATCH, BigInteger)))
