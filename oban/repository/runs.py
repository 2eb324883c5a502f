"""Runs: which attempt of a job is the current one, and which producer executes it.

The row of an executing job has the number of the attempt, and the node and the producer's uuid in
`attempted_by`. A run that these no longer name has lost its job: it was cancelled, rescued or deleted.
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, func, select

from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.dialects.expressions import sql_literal
from oban.models import Job
from oban.types import TextList

_job = Job.__table__.c

#: One run: the job's id, the number of the attempt, and the owner, which is the producer's uuid or, where
#: `attempted_by` has none, an empty string.
RunKey = tuple[int, int, str]


def owner_of(dialect: Dialect) -> ColumnElement[str]:
    """The uuid of the producer that a job was last fetched by; NULL if the row has none."""
    return dialect.element(_job.attempted_by, 1)


def is_current_run(dialect: Dialect, attempt: Any, owner: Any) -> ColumnElement[bool]:
    """Whether a job still executes an attempt of an owner; the statement also has to name the job's id."""
    return and_(
        _job.attempt == attempt,
        func.coalesce(owner_of(dialect), sql_literal("")) == owner,
        dialect.unindexed_state(_job.state) == sql_literal("executing"),
    )


def current_runs(tx: Transaction, ids: Collection[int]) -> set[RunKey]:
    """The current runs of jobs with these ids, on any node."""
    dialect = tx.dialect
    tx.autocommit_next()
    statement = select(_job.id, _job.attempt, owner_of(dialect)).where(
        dialect.in_ids(_job.id, dialect.id_list()),
        dialect.unindexed_state(_job.state) == sql_literal("executing"),
    )
    return {(id_, attempt, owner) for id_, attempt, owner in tx.execute(statement, {"ids": sorted(ids)})}


def lost_runs(tx: Transaction, runs: Sequence[RunKey]) -> set[RunKey]:
    """The runs among these that are no longer current."""
    return set(runs) - current_runs(tx, {run[0] for run in runs})


def unknown_runs(tx: Transaction, owner: str, known: Collection[RunKey]) -> list[RunKey]:
    """The runs of an owner that it does not know, because the answer to its fetch was lost."""
    dialect = tx.dialect
    tx.autocommit_next()
    statement = select(_job.id, _job.attempt).where(
        _job.state == dialect.state("executing"), owner_of(dialect) == owner
    )
    runs = sorted((id_, attempt, owner) for id_, attempt in tx.execute(statement))
    return [run for run in runs if run not in known]


def runs_of(tx: Transaction, owners: Sequence[str]) -> list[RunKey]:
    """The current runs of some owners."""
    dialect = tx.dialect
    tx.autocommit_next()
    owner = owner_of(dialect)
    statement = select(_job.id, _job.attempt, owner).where(
        _job.state == dialect.state("executing"), dialect.in_ids(owner, bindparam("owners", type_=TextList))
    )
    return [(id_, attempt, own) for id_, attempt, own in tx.execute(statement, {"owners": owners})]


def load_run(tx: Transaction, run: RunKey) -> Job | None:
    """The job of a run, as a fetch returns it; None if the run has lost it."""
    id_, attempt, owner = run
    tx.autocommit_next()
    statement = select(*_job).where(_job.id == id_, is_current_run(tx.dialect, attempt, owner))
    row = tx.execute(statement).one_or_none()
    return None if row is None else Job._from_row(row)
