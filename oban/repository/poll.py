"""Poll: look for work that no notification announced, for all queues of a node at once."""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson
from sqlalchemy import BigInteger, Executable, Text, bindparam, cast, func, literal, select, true

from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.models import Job, PeriodicEntry, Queue
from oban.repository.stage import is_waiting

_job = Job.__table__.c
_setting = Queue.__table__.c
_entry = PeriodicEntry.__table__.c


class PollResult(NamedTuple):
    """The result of a poll."""

    #: Seconds until the next job is due by the database's clock, negative if one is; None without such jobs.
    due_in: float | None
    #: The number of stored settings of the instance's queues, and the latest time at which one was changed.
    settings: tuple[int, str | None]
    #: The queues that have jobs to fetch.
    queues: tuple[str, ...]
    #: The number of the instance's periodic entries, and the latest time at which one was changed.
    periodic: tuple[int, str | None] = (0, None)


def poll(tx: Transaction, name: str, queues: Iterable[str]) -> PollResult:
    """Return when a job is due, which of these queues have jobs, and whether settings and entries changed."""
    parameters = {"name": name, "queues": orjson.dumps([{"queue": queue} for queue in queues]).decode()}
    tx.autocommit_next()
    rows = tx.rows(_poll_statement(tx.dialect), parameters)
    node: Any = rows[0]
    due_in = None if node.due_at is None else (node.due_at - node.now).total_seconds()
    with_jobs = tuple(row.queue for row in rows if row.queue is not None)
    return PollResult(
        due_in, (node.settings, node.changed_at), with_jobs, (node.entries, node.entry_changed_at)
    )


@functools.cache
def _poll_statement(dialect: Dialect) -> Executable:
    asked = dialect.recordset("queues", {"queue": Text}).c
    # As in a fetch, the order is that of the index, which the planner might not use without it.
    first = (
        select(_job.id)
        .where(
            _job.state == dialect.state("available"),
            _job.queue == asked.queue,
            _job.attempt < _job.max_attempts,
        )
        .order_by(_job.priority, _job.scheduled_at, _job.id)
        .limit(dialect.index_limit(literal(1, BigInteger)))
        .scalar_subquery()
    )
    with_jobs = select(asked.queue).where(first.is_not(None)).subquery("with_jobs")
    name = bindparam("name", type_=Text)
    of_instance, has_name = _setting.name == name, _entry.name == name
    node: Any = (
        select(
            select(func.min(_job.scheduled_at)).where(is_waiting(dialect)).scalar_subquery().label("due_at"),
            dialect.now().label("now"),
            select(func.count()).where(of_instance).scalar_subquery().label("settings"),
            # As text, because other programs can store times that Python cannot represent.
            select(cast(func.max(_setting.updated_at), Text))
            .where(of_instance)
            .scalar_subquery()
            .label("changed_at"),
            select(func.count()).where(has_name).scalar_subquery().label("entries"),
            select(cast(func.max(_entry.updated_at), Text))
            .where(has_name)
            .scalar_subquery()
            .label("entry_changed_at"),
        )
    ).subquery("node")
    return select(*node.c, with_jobs.c.queue).select_from(node.outerjoin(with_jobs, true()))
