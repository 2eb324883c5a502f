"""Whether a retry or an update would make a unique job the duplicate of another one.

Only these two and inserts judge uniqueness. To cancel, delete, stage, fetch, acknowledge, snooze or rescue a
job never does.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Executable, FromClause, select, true

from oban import encryption, guard
from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.errors import InvalidJob
from oban.guard import Candidate
from oban.models import Job
from oban.progress import Progress
from oban.unique import Unique


class ChangedJob(NamedTuple):
    """A unique job as a call is about to leave it."""

    job_id: int
    key: str
    rule: Unique
    state: str
    inserted_at: datetime
    scheduled_at: datetime


@functools.cache
def no_keys(dialect: Dialect) -> ColumnElement[bool]:
    """Whether none of the jobs of the parameter `ids` is unique."""
    jobs, is_named = _named(dialect)
    return ~select(jobs.c.id).where(is_named).exists()


def claim_keys(tx: Transaction, ids: Sequence[int]) -> set[str]:
    """Claim the keys of some jobs, as `guard.claim` does, and return them.

    This has to come before the jobs are locked. An insert claims keys and then locks the job that it
    replaces, if it replaces one, and whoever locks jobs first can deadlock with it.
    """
    return set(tx.execute(_claim_statement(tx.dialect), {"ids": ids}).scalars())


@functools.cache
def _claim_statement(dialect: Dialect) -> Executable:
    jobs, is_named = _named(dialect)
    named = select(jobs.c.unique_key).where(is_named).distinct().order_by(jobs.c.unique_key)
    statement: Executable = guard.claim_from(dialect, named).returning(guard.KEYS.c.key)
    return statement


def _named(dialect: Dialect) -> tuple[FromClause, ColumnElement[bool]]:
    jobs = Job.__table__.alias()
    # `IS TRUE` keeps the planner from reading the whole partial index on keys instead of these few rows.
    has_key = jobs.c.unique_key.is_not(None).is_(true())
    return jobs, dialect.in_ids(jobs.c.id, dialect.id_list()) & has_key


def new_key(rule: Unique, job: Any, changes: Mapping[str, Any]) -> str | None:
    """The key that some changes give a job, a row or an instance; None if they leave its key as it is."""
    if changes.keys().isdisjoint(rule.fields):
        return None
    before = {name: getattr(job, name) for name in ("worker", "queue", "args", "meta")}
    after = {name: changes.get(name, value) for name, value in before.items()}
    # Without the key of encrypted args, the unique key cannot be computed.
    if any(encryption.is_unreadable(job["worker"], job["args"]) for job in (before, after)):
        return None
    key = _key(rule, after)
    if key == _key(rule, before):
        return key if key is not None and job.unique_key in rule.older_keys(before) else None
    return key


def _key(rule: Unique, values: dict[str, Any]) -> str | None:
    if isinstance(values["meta"], Mapping):
        values["meta"] = _as_inserted(values["meta"])
    try:
        return rule.key(values)
    except InvalidJob:
        # Another program may have stored what is not JSON.
        return None


def _as_inserted(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Meta without what attempts have written to it, and what a new job therefore does not have."""
    written = {"rescued", "snoozed"} | ({"recorded", "return"} if "recorded" in meta else set())
    # An application can have a key of this name for something else.
    if Progress.parse(meta.get("progress")) is not None:
        written.add("progress")
    return {key: value for key, value in meta.items() if key not in written}


def find_conflicts(
    tx: Transaction, changed_jobs: Sequence[ChangedJob], now: datetime, claimed: Iterable[str] = ()
) -> dict[int, int]:
    """Find the jobs that their rules do not allow; returns for each of them the id of a job in its way.

    A stored job can be in the way, or an earlier one of the list that is allowed. Keys that are not among the
    `claimed` ones are claimed here, while the jobs are locked already, so that a call that changes keys can
    deadlock with one that retries several jobs of these keys. The database ends one of them, and Oban repeats
    it if the transaction is its own.
    """
    guard.claim(tx, tx.dialect, {job.key for job in changed_jobs} - set(claimed))
    candidates = [Candidate(each.key, each.rule, each.job_id) for each in changed_jobs]
    conflicts: dict[int, int] = {}
    allowed = _Allowed()
    for job, stored in zip(changed_jobs, guard.find_conflicts(tx, tx.dialect, candidates), strict=True):
        other = allowed.in_the_way_of(job, now) if stored is None else stored
        if other is None:
            allowed.add(job)
        else:
            conflicts[job.job_id] = other
    return conflicts


class _Allowed:
    """The jobs that are allowed so far: of each key and state, the latest by each timestamp."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str, str], tuple[datetime, int]] = {}

    def add(self, job: ChangedJob) -> None:
        for timestamp in ("inserted_at", "scheduled_at"):
            at = getattr(job, timestamp)
            # SQLite stores values of any type in a column, if another program writes them.
            if not isinstance(at, datetime):
                continue
            latest = (at, job.job_id)
            place = (job.key, job.state, timestamp)
            self._latest[place] = max(latest, self._latest.get(place, latest))

    def in_the_way_of(self, job: ChangedJob, now: datetime) -> int | None:
        rule = job.rule
        for state in rule.states:
            if found := self._latest.get((job.key, state, rule.timestamp)):
                at, id_ = found
                if rule.counts(state, (now - at).total_seconds()):
                    return id_
        return None
