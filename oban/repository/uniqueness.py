"""Whether a retry or an update would make a unique job the duplicate of another one.

Only these two and inserts judge uniqueness. To cancel, delete, stage, fetch, acknowledge, snooze or rescue a
job never does.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Executable, FromClause, select, true

from oban import guard
from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.errors import InvalidJob
from oban.guard import Candidate
from oban.models import Job, UniqueKey
from oban.unique import Unique

_keys = UniqueKey.__table__


class Contender(NamedTuple):
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
    insert: Any = dialect.insert(_keys).from_select(["key"], named)
    upsert = insert.on_conflict_do_update(index_elements=["key"], set_={"turn": insert.excluded.turn})
    return upsert.returning(_keys.c.key)  # type: ignore[no-any-return]


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
    key = _key(rule, after)
    return None if key == _key(rule, before) else key


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
    return {key: value for key, value in meta.items() if key not in written}


def find_conflicts(
    tx: Transaction, contenders: Sequence[Contender], now: datetime, claimed: Iterable[str] = ()
) -> dict[int, int]:
    """Find the jobs that their rules do not allow; returns for each of them the id of a job in its way.

    That is a stored job, or a contender that comes before it and is allowed. Keys that are not among the
    `claimed` ones are claimed, with the jobs locked already. Calls that change keys can therefore deadlock
    with calls that retry several jobs of these keys. The database ends one of them, and Oban repeats it if
    the transaction is its own.
    """
    guard.claim(tx, tx.dialect, {contender.key for contender in contenders} - set(claimed))
    candidates = [Candidate(each.key, each.rule, each.job_id) for each in contenders]
    conflicts: dict[int, int] = {}
    allowed = _Allowed()
    for contender, stored in zip(contenders, guard.find_conflicts(tx, tx.dialect, candidates), strict=True):
        other = allowed.in_the_way_of(contender, now) if stored is None else stored
        if other is None:
            allowed.add(contender)
        else:
            conflicts[contender.job_id] = other
    return conflicts


class _Allowed:
    """The contenders that are allowed so far: of each key and state, the latest by each timestamp."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str, str], tuple[datetime, int]] = {}

    def add(self, contender: Contender) -> None:
        for timestamp in ("inserted_at", "scheduled_at"):
            at = getattr(contender, timestamp)
            # SQLite stores values of any type in a column, if another program writes them.
            if not isinstance(at, datetime):
                continue
            entry = (at, contender.job_id)
            place = (contender.key, contender.state, timestamp)
            self._latest[place] = max(entry, self._latest.get(place, entry))

    def in_the_way_of(self, contender: Contender, now: datetime) -> int | None:
        rule = contender.rule
        for state in rule.states:
            if found := self._latest.get((contender.key, state, rule.timestamp)):
                at, id_ = found
                if rule.period is None or (now - at).total_seconds() <= rule.period:
                    return id_
        return None
