"""Inserts jobs of which some are unique. A job that is already there is not inserted, but shown.

Where a statement can write in a CTE, `oban.repository.unique_statement` does it all. Elsewhere, and where
that statement does not decide, the keys are claimed first: nobody else can then insert such a job until the
end of the transaction, so that a look and an insert suffice.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from oban import guard
from oban.database.transaction import Transaction
from oban.errors import ObanError
from oban.guard import Candidate, Lookup
from oban.models import COLUMN_KEYS, Job
from oban.repository.insert_batch import (
    BATCH,
    Record,
    Row,
    decode_lists,
    encode_records,
    insert_records,
    make_record,
)
from oban.repository.instances import reload_instances
from oban.repository.replace import replace
from oban.repository.selection import Selection
from oban.repository.unique_result import Item, show
from oban.repository.unique_statement import single_parameters, single_unique_statement, unique_statement
from oban.types import NEW_STATES
from oban.unique import Unique, of_job

#: How often a job is judged again because the job in its way has changed meanwhile.
MAX_ROUNDS = 100

_jobs: Any = Job.__table__


def any_unique(jobs: Iterable[Job]) -> bool:
    """Whether one of some new jobs is unique, by its own rule or by that of its worker."""
    known: dict[str, bool] = {}
    for job in jobs:
        values = job.__dict__
        if "_unique" in values:
            is_unique = of_job(values)[0] is not None
        elif (is_unique := known.get(values["worker"])) is None:  # type: ignore[assignment]
            is_unique = known[values["worker"]] = of_job(values)[0] is not None
        if is_unique:
            return True
    return False


def insert_unique(tx: Transaction, jobs: list[Job], attach: bool, max_attempts: int | None) -> None:
    """Insert new jobs of which some are unique, as `oban.repository.insert.insert_all` does."""
    call = UniqueInsert(tx, jobs, max_attempts)
    if not call.insert_at_once():
        call.insert_claimed()
    call.replace(attach)
    call.show(attach)


class UniqueInsert:
    """One call that inserts jobs of which some are unique."""

    def __init__(self, tx: Transaction, jobs: list[Job], max_attempts: int | None) -> None:
        self._tx = tx
        self._max_attempts = max_attempts
        self._queue, self._worker = jobs[0].__dict__["queue"], jobs[0].__dict__["worker"]
        self._items = [self._item(job) for job in jobs]
        #: The stored jobs that are in the way, by id, as they are after a replacement.
        self._stored: dict[int, dict[str, Any]] = {}

    def _item(self, job: Job) -> Item:
        record = make_record(job, self._queue, self._worker, self._max_attempts)
        rule, replacement = of_job(job.__dict__)
        if rule is not None:
            compared = {field: job.__dict__[field] for field in ("worker", "queue", "args", "meta")}
            record["unique_key"], record["unique_rule"] = rule.key(compared), rule.rule()
            if rule.period is not None:
                record["period"] = rule.period
        return Item(job, record, rule, replacement)

    # -- with one statement --------------------------------------------------------------------

    def insert_at_once(self) -> bool:
        """Insert the jobs with one statement, if that can decide about all of them. Otherwise, do nothing."""
        if not self._tx.dialect.writes_in_cte or not self._fold():
            return False
        sent = [item for item in self._items if item.earlier is None]
        lookups = {guard.lookup_of(item.rule) for item in sent if item.rule is not None}
        # A replacement is a statement of its own, and the call is all or nothing.
        replaces = len(self._items) > 1 and any(item.replacement for item in self._items)
        if len(sent) > BATCH or len(lookups) > 1 or replaces:
            return False
        (lookup,) = lookups
        return lookup[0] != () and self._send(sent, lookup)

    def _fold(self) -> bool:
        """Find the duplicates within the call; returns False if only the database can tell."""
        firsts: dict[str, Item] = {}
        for item in self._items:
            if item.rule is not None and (first := firsts.setdefault(item.key, item)) is not item:
                if item.rule != first.rule or not _covers_always(item.rule, first.record):
                    return False
                item.earlier = first
        return True

    def _send(self, sent: list[Item], lookup: Lookup) -> bool:
        if len(sent) == 1:
            statement = single_unique_statement(self._tx.dialect, lookup)
            parameters = single_parameters(sent[0].record)
        else:
            for n, item in enumerate(sent):
                item.record["n"] = n
            statement = unique_statement(self._tx.dialect, lookup)
            parameters = {"jobs": encode_records([item.record for item in sent])}
        # Not earlier: a job that is refused would count as a failure of the connection.
        self._tx.autocommit_next()
        rows: Any = self._tx.rows(
            statement, {**parameters, "first_queue": self._queue, "first_worker": self._worker}
        )
        stored: dict[int, Any] = {}
        inserted: list[Row] = []
        for n, *columns, inserted_at, ids, times, states in rows:
            if n is not None:
                stored[n] = columns
            elif ids is not None:
                inserted = sorted(decode_lists(inserted_at, ids, times, states))
                now = inserted_at
        fresh = [item for n, item in enumerate(sent) if n not in stored]
        if len(inserted) < len(fresh):
            # Another transaction has claimed a key since the statement began. Its job may be in the way.
            self._tx.end_autocommit()
            return False
        for n, columns in stored.items():
            sent[n].stored = self._keep(columns)
        # Ids are assigned in the order of the jobs.
        for item, row in zip(fresh, inserted, strict=True):
            item.inserted, item.inserted_at = row, now
        return True

    # -- with claimed keys ---------------------------------------------------------------------

    def insert_claimed(self) -> None:
        """Claim the keys of all jobs, look for jobs in their way, and insert the rest."""
        unique = [item for item in self._items if item.rule is not None]
        guard.claim(self._tx, self._tx.dialect, [item.key for item in unique])
        self._look(unique)
        self._compare([item for item in unique if item.stored is None])
        self._insert([item for item in self._items if item.stored is None and item.earlier is None])

    def _look(self, items: list[Item]) -> None:
        """Find the stored jobs that are in the way."""
        for _ in range(MAX_ROUNDS):
            for item in items:
                item.stored = item.earlier = None
            candidates = [Candidate(item.key, item.rule) for item in items if item.rule is not None]
            ids = guard.find_conflicts(self._tx, self._tx.dialect, candidates)
            stored = self._load({id_ for id_ in ids if id_ is not None})
            for item, id_ in zip(items, ids, strict=True):
                item.stored = None if id_ is None else stored.get(id_)
            # One that was deleted meanwhile may have been in front of another one.
            items = [
                item for item, id_ in zip(items, ids, strict=True) if id_ is not None and item.stored is None
            ]
            if not items:
                return
        raise self._no_progress(items[0])

    def _load(self, ids: set[int]) -> dict[int, dict[str, Any]]:
        if not ids:
            return {}
        dialect = self._tx.dialect
        statement = select(*_jobs.c).where(dialect.in_ids(_jobs.c.id, dialect.id_list()))
        rows = self._tx.execute(statement, {"ids": sorted(ids)})
        return {row.id: self._keep(row) for row in rows}

    def _keep(self, columns: Iterable[Any]) -> dict[str, Any]:
        values = dict(zip(COLUMN_KEYS, columns, strict=True))
        stored = self._stored.setdefault(values["id"], values)
        stored.update(values)
        return stored

    def _compare(self, items: list[Item]) -> None:
        """Find the jobs that an earlier new job of the call is in the way of."""
        by_key: dict[str, list[Item]] = {}
        now = None
        for item in items:
            inserted = by_key.setdefault(item.key, [])
            rule = item.rule
            if inserted and rule is not None and any(state in NEW_STATES for state in rule.states):
                if now is None:
                    now = self._tx.execute(select(self._tx.dialect.now().label("now"))).scalar_one()
                item.earlier = next((new for new in inserted if _covers(rule, new.record, now)), None)
            if item.earlier is None:
                inserted.append(item)

    def _insert(self, items: list[Item]) -> None:
        for start in range(0, len(items), BATCH):
            batch = items[start : start + BATCH]
            records = [item.record for item in batch]
            inserted_at, rows = insert_records(self._tx, self._queue, self._worker, records, is_unique=True)
            for item, row in zip(batch, rows, strict=True):
                item.inserted, item.inserted_at = row, inserted_at

    # -- afterwards ----------------------------------------------------------------------------

    def replace(self, attach: bool) -> None:
        """Change the jobs that are in the way, as the new jobs ask for it, in the order of the call."""
        changed: set[int] = set()
        for item in self._items:
            if item.earlier is not None and item.earlier.stored is not None:
                item.stored, item.earlier = item.earlier.stored, None
            if item.replacement and (id_ := self._replace(item)) is not None:
                changed.add(id_)
        if attach and changed:
            # The session can have instances of these jobs.
            reload_instances(self._tx, Selection(), changed, {*COLUMN_KEYS})

    def _replace(self, item: Item) -> int | None:
        """Change the job in the way of an item; returns its id, or None if there is nothing to change."""
        for _ in range(MAX_ROUNDS):
            if (conflict := self._conflict(item)) is None:
                return None
            id_, state = conflict
            changed = replace(
                self._tx, item.job, item.record, self._max_attempts, id_, state, item.replacement
            )
            if changed is None:
                return None
            if changed:
                self._keep(changed)
                return conflict[0]
            # The job has got another state or another key meanwhile.
            self._tx.end_autocommit()
            guard.claim(self._tx, self._tx.dialect, [item.key])
            self._look([item])
            if item.stored is None:
                self._insert([item])
        raise self._no_progress(item)

    def _conflict(self, item: Item) -> tuple[int, str] | None:
        """The id and the state of the job in the way."""
        if item.stored is not None:
            return item.stored["id"], item.stored["state"]
        if item.earlier is None or item.earlier.inserted is None:
            return None
        id_, _, state = item.earlier.inserted
        return id_, self._stored[id_]["state"] if id_ in self._stored else state

    def show(self, attach: bool) -> None:
        """Let the instances show what is stored."""
        show(self._tx, self._items, self._stored, attach, self._max_attempts)

    @staticmethod
    def _no_progress(item: Item) -> ObanError:
        return ObanError(
            f"{item.job!r} was not enqueued: a job with the same unique key has changed {MAX_ROUNDS} times"
            " while it was looked up; enqueue it again"
        )


def _covers_always(rule: Unique, record: Record) -> bool:
    """Whether a new job with a record is certainly in the way of the next one, by its rule."""
    if "state" in record:
        possible = {record["state"]}
    else:
        possible = {"available", "scheduled"} if record.keys() & {"delay", "scheduled_at"} else {"available"}
    return possible.issubset(rule.states) and (rule.period is None or rule.timestamp == "inserted_at")


def _covers(rule: Unique, record: Record, now: datetime) -> bool:
    """Whether a job with a record, which is inserted now, is in the way of the next one, by its rule."""
    due_in = record.get("delay", 0.0)
    if "delay" not in record and "scheduled_at" in record:
        at = datetime.fromisoformat(record["scheduled_at"]).replace(tzinfo=UTC)
        due_in = (at - now).total_seconds()
    state = record.get("state", "scheduled" if due_in > 0 else "available")
    return rule.counts(state, 0.0 if rule.timestamp == "inserted_at" else -due_in)
