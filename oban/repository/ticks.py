"""Fire: insert the jobs of periodic entries that are due, each tick once whoever else tries."""

import functools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    BigInteger,
    Executable,
    Float,
    Text,
    and_,
    bindparam,
    delete,
    exists,
    false,
    literal,
    literal_column,
    or_,
    select,
    update,
)

from oban import encoding, periodic
from oban.catch_up import due_ticks
from oban.cron import REBOOT, Cron
from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.models import Job, Leader, PeriodicEntry, Tick
from oban.repository import insert
from oban.repository.inner_transaction import InnerTransaction
from oban.repository.periodic import Entry, load_entries
from oban.types import UTCDateTime

_entries = PeriodicEntry.__table__
_entry = _entries.c
_ticks = Tick.__table__
_tick = _ticks.c
_leader = Leader.__table__.c

#: Seconds after which a tick can be deleted, if `last_tick` keeps it from inserting a job again.
KEEP_TICKS = 7 * 86_400.0
#: How many ticks one statement deletes.
PRUNE_BATCH = 1000


class EntryLocked(Exception):
    """An entry did not fire, because a transaction that is still open has changed it."""


class FiredTick(NamedTuple):
    """A tick that has inserted a job, or whose job, a unique one, was there already."""

    entry: str
    tick: datetime
    job_id: int


@dataclass(slots=True)
class Fired:
    """What `fire` has done.

    `entries` are all entries of the instance as they were before, `jobs` those of the `ticks` in their order,
    and `failures` the names of the entries that could not fire, with the errors.
    """

    now: datetime
    entries: list[Entry]
    ticks: list[FiredTick] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    failures: list[tuple[str, Exception]] = field(default_factory=list)


def read_clock_and_entries(tx: Transaction, name: str) -> tuple[datetime, list[Entry]]:
    """The time by the database's clock, and all entries of an instance."""
    entries = load_entries(tx, name)
    if entries:
        return entries[0].read_at, entries
    return cast(datetime, tx.execute(select(tx.dialect.now())).scalar_one()), entries


def begin_entries(tx: Transaction, name: str) -> None:
    """Let the entries that have never fired, except those for a reboot, begin now."""
    tx.dialect.begin_write(tx.connection())
    never_fired = [entry.name for entry in load_entries(tx, name) if has_to_begin(entry)]
    if free := _lock(tx, name, never_fired):
        _move_last_tick(tx, name, sorted(free), tx.dialect.now())


def has_to_begin(entry: Entry) -> bool:
    """Whether an entry has never fired, and does not know since when it could have."""
    return entry.last_tick is None and not is_reboot(entry)


def is_reboot(entry: Entry) -> bool:
    """Whether an entry fires when a leader is elected."""
    return str(entry.values.get("expression")).strip().lower() == REBOOT


def fire(
    tx: Transaction,
    name: str,
    names: Collection[str],
    lease: float,
    *,
    reboot: datetime | None = None,
    max_attempts: int | None = None,
) -> Fired:
    """Insert the jobs of all ticks of some entries that are due and have not inserted one.

    Everything is decided here, by the rows and the database's clock: whoever calls this, however often, each
    tick of an entry inserts one job. An entry that is paused or that no live node declares does not fire. One
    whose stored values make no valid job is reported in `failures`, and so is one whose row another
    transaction has locked, for which the other entries do not wait. Its ticks stay due.

    Args:
        tx: The transaction, which this has to itself.
        name: The name of the instance.
        names: The names of the entries.
        lease: The seconds after which an entry of the code that no node has declared is gone, if its row does
            not tell the lease of the node that has declared it. An entry for a reboot does not fire if a term
            has ended, or begun, within the lease before `reboot`.
        reboot: When the leader was elected, if there was none for longer than the lease or an earlier one
            has resigned: the tick of `@reboot`.
        max_attempts: For jobs that do not set it.
    """
    tx.dialect.begin_write(tx.connection())
    # Before anything is read: who gets the lock sees what an earlier transaction has done.
    free = _lock(tx, name, names)
    now, entries = read_clock_and_entries(tx, name)
    fired = Fired(now, entries)
    due: dict[tuple[str, datetime], Job] = {}
    for entry in entries:
        if entry.name not in names or entry.paused or entry.is_gone(lease):
            continue
        if entry.name not in free:
            fired.failures.append((entry.name, EntryLocked("a transaction that is open has changed it")))
            continue
        try:
            ticks = due_ticks_of(entry, now, lease, reboot)
            due.update({(entry.name, tick): entry.new_job(tick) for tick in ticks})
        # Another program, or another version, can have stored anything.
        except Exception as error:
            fired.failures.append((entry.name, error))
    if due:
        claimed = _claim(tx, name, due)
        newest = dict(sorted(due))
        for tick in sorted(set(newest.values())):
            _move_last_tick(tx, name, [entry for entry, at in newest.items() if at == tick], tick)
        fired.jobs = [due[key] for key in claimed]
        fired.ticks = _insert_jobs(tx, name, {key: due[key] for key in claimed}, max_attempts)
    return fired


def _lock(tx: Transaction, name: str, names: Collection[str]) -> Collection[str]:
    """Lock entries, and return the names of those that no other transaction has locked."""
    if tx.dialect.single_writer or not names:
        return names
    parameters = {"of_instance": name, "names": encoding.dumps([{"entry": entry} for entry in names])}
    return {row.entry for row in tx.rows(_lock_statement(tx.dialect), parameters)}


@functools.cache
def _lock_statement(dialect: Dialect) -> Executable:
    wanted = dialect.recordset("names", {"entry": Text}).c
    return (
        select(_entry.entry)
        .select_from(_entries.join(wanted.entry.table, _entry.entry == wanted.entry))
        .where(_entry.name == bindparam("of_instance", type_=Text))
        # Who does not wait needs no order of locks.
        .with_for_update(key_share=True, of=_entries, skip_locked=True)
    )


def due_ticks_of(entry: Entry, now: datetime, lease: float, reboot: datetime | None) -> list[datetime]:
    """The ticks of an entry that are due. Raises an error if its stored values are invalid.

    `lease` and `reboot` are as for `fire`.
    """
    timing = periodic.check_timing({key: entry.values[key] for key in periodic.TIMING if key in entry.values})
    cron = Cron.parse(timing.get("expression"), timing.get("timezone", "UTC"))
    last_tick = entry.last_tick
    if cron.is_reboot:
        was_vacant = reboot and (last_tick is None or (reboot - last_tick).total_seconds() > lease)
        return [reboot] if reboot and was_vacant else []
    if last_tick is None:
        # It begins when `begin_entries` is called.
        return []
    policy = timing.get("catch_up", "latest")
    return due_ticks(cron, last_tick, now, policy, timing.get("window", periodic.DEFAULT_WINDOW))


def _claim(tx: Transaction, name: str, due: Iterable[tuple[str, datetime]]) -> list[tuple[str, datetime]]:
    """Insert the rows of ticks; returns those that were not there, by time and entry."""
    records = [{"entry": entry, "tick": _stored(tick)} for entry, tick in sorted(due)]
    parameters = {"of_instance": name, "ticks": encoding.dumps(records)}
    claimed = tx.rows(_claim_statement(tx.dialect), parameters)
    return sorted(((row.entry, row.tick) for row in claimed), key=lambda key: key[::-1])


@functools.cache
def _claim_statement(dialect: Dialect) -> Executable:
    instance = bindparam("of_instance", type_=Text)
    due = dialect.recordset("ticks", {"entry": Text, "tick": UTCDateTime}).c
    of_entry = and_(_entry.name == instance, _entry.entry == due.entry)
    rows = (
        select(_entry.name, _entry.entry, due.tick, dialect.now())
        .select_from(_entries.join(due.entry.table, of_entry))
        .where(_entry.paused == false(), or_(_entry.last_tick.is_(None), _entry.last_tick < due.tick))
        .order_by(_entry.entry, due.tick)
    )
    columns = ["name", "entry", "tick", "inserted_at"]
    insert_: Any = dialect.insert(_ticks).from_select(columns, rows)
    statement: Executable = insert_.on_conflict_do_nothing().returning(_tick.entry, _tick.tick)
    return statement


def _stored(tick: datetime) -> str:
    return tick.replace(tzinfo=None).isoformat(" ", "microseconds")


def _move_last_tick(tx: Transaction, name: str, names: Sequence[str], tick: Any) -> None:
    is_older = or_(_entry.last_tick.is_(None), _entry.last_tick < tick)
    statement = update(_entries).where(_entry.name == name, _entry.entry.in_(names), is_older)
    tx.execute(statement.values(last_tick=tick))


def _insert_jobs(
    tx: Transaction, name: str, jobs: dict[tuple[str, datetime], Job], max_attempts: int | None
) -> list[FiredTick]:
    if not jobs:
        return []
    insert.insert_all(InnerTransaction(tx), list(jobs.values()), max_attempts=max_attempts)
    fired = [FiredTick(entry, tick, job.id) for (entry, tick), job in jobs.items()]
    statement = update(_ticks).where(
        _tick.name == name,
        _tick.entry == bindparam("of_entry", type_=Text),
        _tick.tick == bindparam("at", type_=UTCDateTime),
    )
    statement = statement.values(job_id=bindparam("inserted", type_=BigInteger))
    tx.execute(statement, [{"of_entry": entry, "at": tick, "inserted": id_} for entry, tick, id_ in fired])
    return fired


def elected_at(tx: Transaction, name: str, identity: str) -> datetime | None:
    """When a node was elected as the leader of an instance; None if it is not the leader any more."""
    statement = select(_leader.elected_at).where(_leader.name == name, _leader.node == identity)
    tx.autocommit_next()
    return tx.execute(statement).scalar()


def end_term(tx: Transaction, name: str, names: Sequence[str]) -> None:
    """Note in entries for a reboot that there was a leader until now."""
    if free := _lock(tx, name, names):
        # By the same clock as `elected_at`.
        _move_last_tick(tx, name, sorted(free), tx.dialect.real_clock.now())


def prune_ticks(tx: Transaction, limit: int = PRUNE_BATCH) -> int:
    """Delete old ticks, of all instances, whose entry is gone or does not need them; returns the number.

    The `last_tick` of an entry keeps the ticks up to it from inserting jobs again. The tick of that time is
    needed, because `list_periodic` shows its job.
    """
    is_needed = exists().where(
        _entry.name == _tick.name,
        _entry.entry == _tick.entry,
        or_(_entry.last_tick.is_(None), _entry.last_tick <= _tick.tick),
    )
    is_old = _tick.tick <= tx.dialect.now_minus(literal(KEEP_TICKS, Float))
    row: Any = literal_column(tx.dialect.row_address)
    limited = tx.dialect.index_limit(literal(limit, BigInteger))
    old = select(row).select_from(_ticks).where(is_old, ~is_needed).order_by(_tick.tick).limit(limited)
    # Two leaders do not wait for each other.
    old = old.with_for_update(of=_ticks, skip_locked=True)
    tx.autocommit_next()
    result: Any = tx.execute(delete(_ticks).where(tx.dialect.in_subquery(row, old)))
    return int(result.rowcount)
