"""Whether a job has ended, and whether a queue is empty."""

import functools
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Executable, Text, bindparam, func, literal, select

from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.errors import JobNotFound
from oban.models import Job
from oban.repository.instances import refresh_instances, shown_by
from oban.repository.management import get_job
from oban.repository.selection import MAX_ID, Selection
from oban.repository.stage import is_waiting
from oban.types import ENDED_STATES

_job = Job.__table__.c
_STATE = select(_job.state).where(_job.id == bindparam("job_id"))


def ended_job(tx: Transaction, selection: Selection) -> Job | None:
    """The one selected job, if it has ended: the instance that was passed, which shows the row then.

    Raises `JobNotFound` if there is no row.
    """
    (job_id,) = selection.ids
    # No lock orders this read among other calls, so a call that has refreshed the instance meanwhile wins.
    selection.locked_at = shown_by(selection)
    # Most looks are this statement alone, which then takes one round trip.
    tx.autocommit_next()
    rows = tx.rows(_STATE, {"job_id": job_id}) if 0 < job_id <= MAX_ID else ()
    if not rows:
        raise JobNotFound([job_id])
    job = get_job(tx, job_id) if rows[0].state in ENDED_STATES else None
    if job is None or job.state not in ENDED_STATES:
        return None
    refresh_instances(tx, selection, [job], {job_id: ()})
    return selection.instances.get(job_id, [job])[0]


def is_empty(tx: Transaction, queue: str | None) -> bool:
    """Whether no job of a queue, or of any queue, is available, executing, or due."""
    parameters = {} if queue is None else {"queue": queue}
    return tx.execute(_busy_statement(tx.dialect, queue is not None), parameters).scalar_one() is None


@functools.cache
def _busy_statement(dialect: Dialect, one_queue: bool) -> Executable:
    """The id of one job that is available, executing or due; NULL if there is none."""
    in_queue = [_job.queue == bindparam("queue", type_=Text)] if one_queue else []
    order = [*([] if one_queue else [_job.queue]), _job.priority, _job.scheduled_at, _job.id]

    def first(order: Sequence[ColumnElement[Any]], *conditions: ColumnElement[bool]) -> Any:
        # The order is that of an index. Without one, the planner may read the whole table instead, because it
        # expects to find a row soon.
        limit = dialect.index_limit(literal(1, BigInteger))
        ordered = select(_job.id).where(*conditions, *in_queue).order_by(*order).limit(limit)
        return ordered.scalar_subquery()

    return select(
        func.coalesce(
            first(order, _job.state == dialect.state("available")),
            first(order, _job.state == dialect.state("executing")),
            first([_job.scheduled_at, _job.id], is_waiting(dialect), _job.scheduled_at <= dialect.now()),
        )
    )
