"""The checks of the queues: how long jobs wait, and whether a node runs them. Each reads few rows."""

import functools
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import BigInteger, Executable, func, literal, select

from oban import suggestions
from oban.amounts import duration
from oban.database.transaction import Transaction
from oban.diagnosis.health_findings import Finding
from oban.diagnosis.health_subject import Subject
from oban.dialects.base import Dialect
from oban.models import Job, Producer
from oban.repository import cluster, stats
from oban.repository.stage import is_waiting

_job = Job.__table__.c
_producer = Producer.__table__.c

#: At most so many queues with available jobs are looked at, and so many jobs that are due.
MAX_QUEUES = 500
MAX_DUE = 1000


class _Served(NamedTuple):
    """The queues that live nodes run, of all instances, as these share the jobs."""

    running: frozenset[str]
    paused: frozenset[str]


def check_queues(tx: Transaction, about: Subject) -> Iterator[Finding]:
    """How long the oldest available job of each queue that a node runs has waited."""
    code, served = "oldest_job", _served(tx)
    waiting = [(age, queue) for queue, age in _ages(tx).items() if queue in served.running | served.paused]
    bad = [(age, queue) for age, queue in waiting if about.thresholds.judge(code, age) != "ok"]
    for age, queue in sorted(bad, reverse=True):
        severity = about.thresholds.judge(code, age)
        text = f"The oldest available job of the queue {queue} has waited for {duration(age)}"
        if queue in served.running:
            scale = about.commands.queues("scale", queue, "LIMIT")
            yield Finding(
                code,
                severity,
                f"{text}.",
                f"Run more of its jobs at once, with `{scale}`, or on more nodes."
                f" `{about.commands.why('ID')}` says what a job waits for.",
            )
        else:
            yield Finding(
                code,
                severity,
                f"{text}, because the queue is paused on all nodes that run it.",
                f"Run `{about.commands.queues('resume', queue)}`.",
            )
    if not bad:
        text = "No available job waits in a queue that a node runs."
        if waiting:
            age, queue = max(waiting)
            text = f"The oldest available job, of the queue {queue}, has waited for {duration(age)}."
        yield Finding(code, "ok", text)


def check_unserved(tx: Transaction, about: Subject) -> Iterator[Finding]:
    """Whether there are jobs to run in queues that no node runs."""
    code, served, ages = "unserved_queue", _served(tx), {**_due_ages(tx)}
    for queue, age in _ages(tx).items():
        ages[queue] = max(age, ages.get(queue, age))
    runs = served.running | served.paused
    unserved = sorted((age, queue) for queue, age in ages.items() if queue not in runs)
    for age, queue in reversed(unserved):
        near = suggestions.similar(queue, runs)
        move = about.commands.jobs("update", "--queue", queue, "--set-queue", near or "NAME")
        yield Finding(
            code,
            "critical" if about.thresholds.judge("oldest_job", age) == "critical" else "warning",
            f"No live node runs the queue {queue}, whose oldest job has waited for {duration(age)}."
            + (f" Did you mean {near}?" if near else ""),
            f"Start a node with --queues {queue}:10, or let the nodes that run start it, with"
            f" `{about.commands.queues('start', queue)}`. If the name is wrong, move the jobs with `{move}`.",
        )
    if not unserved:
        yield Finding(code, "ok", "Nodes run all queues that have jobs to run.")


def check_staging(tx: Transaction, about: Subject) -> Iterator[Finding]:
    """Whether the nodes make jobs available when they are due."""
    code, served = "staging", _served(tx)
    late = max(_due_ages(tx).values(), default=0.0)
    severity = about.thresholds.judge("oldest_job", late)
    if severity != "ok" and (served.running or served.paused):
        yield Finding(
            code,
            severity,
            f"A scheduled or retryable job has been due for {duration(late)}, and no node has made it"
            " available.",
            "Look for errors of oban.stager in the logs of the nodes: each of them does that every"
            " stage_interval.",
        )
    else:
        yield Finding(code, "ok", "Scheduled and retryable jobs become available when they are due.")


def _served(tx: Transaction) -> _Served:
    now = cluster.database_time(tx)
    producers = tx.execute(select(_producer.queue, _producer.meta, _producer.updated_at))
    running: set[str] = set()
    paused: set[str] = set()
    for queue, meta, updated_at in producers:
        if (now - updated_at).total_seconds() < cluster.lease_of(meta, 0.0):
            is_paused = isinstance(meta, dict) and meta.get("paused") is True
            (paused if is_paused else running).add(queue)
    return _Served(frozenset(running), frozenset(paused - running))


def _ages(tx: Transaction) -> dict[str, float]:
    """For how many seconds the oldest available job of each queue has waited."""
    queues = tx.execute(_queues_statement(tx.dialect)).scalars().all()
    # SQLite stores values of any type in a text column, if another program writes them.
    oldest = stats.oldest_available(tx, [queue for queue in queues if isinstance(queue, str)])
    now = _now(tx)
    return {queue: (now - at).total_seconds() for queue, at in oldest.items()}


def _due_ages(tx: Transaction) -> dict[str, float]:
    """For how many seconds the oldest scheduled or retryable job of each queue has been due, if one is."""
    now = _now(tx)
    ages: dict[str, float] = {}
    for queue, at in tx.execute(_due_statement(tx.dialect)):
        if isinstance(queue, str):
            ages.setdefault(queue, (now - at).total_seconds())
    return ages


def _now(tx: Transaction) -> datetime:
    now: datetime = tx.execute(select(tx.dialect.now())).scalar_one()
    return now


@functools.cache
def _queues_statement(dialect: Dialect) -> Executable:
    # Each step finds the next queue by the index, whatever the number of jobs.
    available = _job.state == dialect.state("available")
    first = select(func.min(_job.queue).label("queue")).where(available)
    queues = first.cte("queues", recursive=True)
    following = select(func.min(_job.queue)).where(available, _job.queue > queues.c.queue)
    queues = queues.union_all(select(following.scalar_subquery()).where(queues.c.queue.is_not(None)))
    return select(queues.c.queue).where(queues.c.queue.is_not(None)).limit(MAX_QUEUES)


@functools.cache
def _due_statement(dialect: Dialect) -> Executable:
    return (
        select(_job.queue, _job.scheduled_at)
        .where(is_waiting(dialect), _job.scheduled_at <= dialect.now())
        .order_by(_job.scheduled_at, _job.id)
        .limit(dialect.index_limit(literal(MAX_DUE, BigInteger)))
    )
