"""Stores the progress of jobs while they run."""

import functools
from collections.abc import Mapping
from typing import Any

from sqlalchemy import BigInteger, Text, Update, select, true, update

from oban import encoding
from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.models import Job
from oban.repository.runs import RunKey, is_current_run

_jobs = Job.__table__
_job = _jobs.c


def store_progress(tx: Transaction, progress: Mapping[RunKey, str]) -> set[int]:
    """Put the progress of runs, as JSON text, into `meta["progress"]`; returns the ids of the changed jobs.

    A run that has lost its job changes nothing, and neither does one whose row somebody has locked: a job can
    lock its own row until it ends, and nobody must wait for that.
    """
    names = ("id", "attempt", "owner", "progress")
    records = [dict(zip(names, (*key, text), strict=True)) for key, text in sorted(progress.items())]
    # In a longer transaction, a node that is frozen would keep the rows locked.
    tx.autocommit_next()
    rows = tx.rows(_store_statement(tx.dialect), {"reports": encoding.dumps(records)})
    return {row[0] for row in rows}


@functools.cache
def _store_statement(dialect: Dialect) -> Update:
    columns: dict[str, Any] = {"id": BigInteger, "attempt": BigInteger, "owner": Text, "progress": Text}
    report = dialect.recordset("reports", columns).c
    ids = select(_job.id).where(_job.id.in_(select(report.id))).order_by(_job.id)
    is_free = dialect.in_subquery(_job.id, ids.with_for_update(skip_locked=True))
    return (
        update(_jobs)
        # A single writer locks no rows, and SQLite would scan all reports for each id.
        .where(
            true() if dialect.single_writer else is_free,
            _job.id == report.id,
            is_current_run(dialect, report.attempt, report.owner),
        )
        .values(meta=dialect.set_keys(_job.meta, {"progress": report.progress}))
        .returning(_job.id)
    )
