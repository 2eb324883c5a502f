"""Whose run is it: what a producer believes, next to what the database says."""

from collections.abc import Collection, Sequence

from sqlalchemy import select

from oban.database.transaction import Transaction
from oban.dialects.base import sql_literal
from oban.models import Job
from oban.repository.acknowledge import RunKey

_job = Job.__table__.c


def current_runs(tx: Transaction, ids: Collection[int]) -> set[RunKey]:
    """The executing attempts of some jobs."""
    dialect = tx.dialect
    statement = select(_job.id, _job.attempt, dialect.second_element(_job.attempted_by)).where(
        dialect.in_ids(_job.id, dialect.id_list()),
        dialect.unindexed_state(_job.state) == sql_literal("executing"),
    )
    return {(id_, attempt, owner) for id_, attempt, owner in tx.execute(statement, {"ids": sorted(ids)})}


def lost_runs(tx: Transaction, runs: Sequence[RunKey]) -> set[RunKey]:
    """Which of some runs are no longer the current, executing attempt of their job."""
    return set(runs) - current_runs(tx, {run[0] for run in runs})


def unknown_runs(tx: Transaction, owner: str, known: Collection[RunKey]) -> list[RunKey]:
    """The runs that the database has of a producer, and the producer has not: lost answers."""
    dialect = tx.dialect
    statement = select(_job.id, _job.attempt).where(
        _job.state == dialect.state("executing"), dialect.second_element(_job.attempted_by) == owner
    )
    rows = sorted((id_, attempt, owner) for id_, attempt in tx.execute(statement))
    return [held for held in rows if held not in known]


def load_run(tx: Transaction, run: RunKey) -> Job | None:
    """The job of a run, as a fetch would have given it; None if it is not its current one any more."""
    id_, attempt, owner = run
    dialect = tx.dialect
    statement = select(*_job).where(
        _job.id == id_,
        _job.attempt == attempt,
        dialect.second_element(_job.attempted_by) == owner,
        dialect.unindexed_state(_job.state) == sql_literal("executing"),
    )
    row = tx.execute(statement).one_or_none()
    return None if row is None else Job._from_row(row)
