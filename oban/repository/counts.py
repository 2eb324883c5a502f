"""Count jobs by queue and state."""

from typing import Any, TypeAlias

from sqlalchemy import Select, Text, bindparam, func, select

from oban import compat
from oban.database.transaction import Transaction
from oban.models import Job
from oban.repository.selection import execute_select
from oban.types import JobState

_job = Job.__table__.c

#: The number of jobs by queue, and then by state. Each `JobState` is a string, too.
JobCounts: TypeAlias = dict[str, dict[str, int]]


def count_jobs(tx: Transaction, statement: Select[Any] | None, queue: str | None) -> JobCounts:
    """The number of jobs by queue and state, of all jobs or of those that a caller's statement selects.

    With `queue`, of that queue alone, even if it has no jobs.
    """
    counts: JobCounts = {} if queue is None else {queue: _zeros()}
    for state, name, number in _count(tx, statement, queue):
        # SQLite stores values of any type in a text column, if another program writes them.
        if isinstance(name, str) and state is not None:
            counts.setdefault(name, _zeros())[state] += number
    return dict(sorted(counts.items()))


def _zeros() -> dict[str, int]:
    return dict.fromkeys(JobState, 0)


def _count(tx: Transaction, statement: Select[Any] | None, queue: str | None) -> Any:
    if statement is not None:
        found = statement.subquery()
        # A join can find a job several times. To compare the ids takes longer than all the rest.
        joins = statement.get_final_froms() != [Job.__table__]
        number = func.count(found.c.id.distinct()) if joins else func.count()
        counted = select(found.c.state, found.c.queue, number)
        if queue is not None:
            counted = counted.where(found.c.queue == queue)
        counted = counted.group_by(found.c.state, found.c.queue)
        return execute_select(tx, counted, compat.locks_rows(statement))
    # In the order of an index, which has both columns.
    counted = select(_job.state, _job.queue, func.count()).group_by(_job.state, _job.queue)
    if queue is None:
        return tx.execute(counted)
    # The index begins with the state: it is searched once for each.
    is_any_state = _job.state.in_([tx.dialect.state(state.value) for state in JobState])
    of_queue = counted.where(is_any_state, _job.queue == bindparam("queue_name", type_=Text))
    return tx.execute(of_queue, {"queue_name": queue})
