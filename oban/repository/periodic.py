"""The entries of periodic jobs: what the code declares, what operators change, and the effective result."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Double,
    Executable,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
)

from oban import encoding, periodic
from oban.cron import Cron
from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.dialects.expressions import sql_literal
from oban.errors import InvalidJob
from oban.models import Job, PeriodicEntry
from oban.periodic import JOB_FIELDS, Periodic
from oban.types import JSONDocument, UTCDateTime
from oban.unique import Unique, parse_replace

_entries = PeriodicEntry.__table__
_entry = _entries.c

#: The values of `source`: declared by the code, or added by `add_periodic`.
CODE, RUNTIME = "code", "runtime"
#: Fractions of the lease: how old `seen_at` can be before a node refreshes it, and before a node with older
#: code takes an entry over, because those with newer code are gone.
_FRESH, _ABANDONED = 0.25, 0.75
#: The most seconds between two declarations, however long the lease is.
MAX_INTERVAL = 15.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of `oban_periodic`. `values` is the effective entry: `declared` with the keys of `override`."""

    name: str
    values: dict[str, Any]
    declared: dict[str, Any]
    override: dict[str, Any]
    source: str
    paused: bool
    declared_at: datetime
    seen_at: datetime
    #: The lease of the node that has declared the entry, in seconds.
    lease: float | None
    last_tick: datetime | None
    #: The database's time when the row was read, and the seconds since a node has declared the entry. A clock
    #: that a test moves is no reason to believe that nodes are gone.
    read_at: datetime
    unseen_for: float

    def is_gone(self, lease: float) -> bool:
        """Whether no live node declares the entry any more, so that it does not fire.

        `lease` counts if the row does not tell that of the node that has declared it.
        """
        return self.source == CODE and self.unseen_for >= (self.lease or lease)

    def new_job(self, tick: datetime | None = None) -> Job:
        """A new job of the entry, for a tick or without one. Raises `InvalidJob` for wrong stored values."""
        values = {key: self.values[key] for key in JOB_FIELDS if self.values.get(key) is not None}
        own = values.pop("meta", {})
        if not isinstance(own, dict):
            raise InvalidJob("meta", f"must be a dict, not {type(own).__name__}")
        meta = {
            **own,
            "cron": True,
            "cron_name": self.name,
            "cron_expr": self.values.get("expression"),
            "cron_tz": self.values.get("timezone"),
        }
        if tick is not None:
            meta["cron_tick"] = tick.strftime("%Y-%m-%dT%H:%M:%SZ")
        job = Job(**values, meta=meta)
        if "unique" in self.values:
            job.__dict__["_unique"] = Unique.from_rule(self.values["unique"])
            job.__dict__["_replace"] = parse_replace(self.values.get("replace") or {})
        return job


def load_entries(tx: Transaction, name: str, entry: str | None = None) -> list[Entry]:
    """The entries of an instance, or the one of a name, with their effective values, by name."""
    columns = (
        *("entry", "declared", "override", "source", "paused"),
        *("declared_at", "seen_at", "lease", "last_tick"),
    )
    times = (tx.dialect.now().label("read_at"), tx.dialect.real_clock.now().label("real_time"))
    statement = select(*(_entry[column] for column in columns), *times)
    statement = statement.where(_entry.name == name).order_by(_entry.entry)
    if entry is not None:
        statement = statement.where(_entry.entry == entry)
    return [
        Entry(
            name=row.entry,
            values=periodic.effective(row.declared, row.override),
            declared=periodic.effective(row.declared, None),
            override=periodic.effective(None, row.override),
            source=row.source,
            paused=row.paused,
            declared_at=row.declared_at,
            seen_at=row.seen_at,
            lease=_number(row.lease),
            last_tick=row.last_tick,
            read_at=row.read_at,
            unseen_for=(row.real_time - row.seen_at).total_seconds(),
        )
        for row in tx.execute(statement)
    ]


def _number(lease: Any) -> float | None:
    # SQLite can have a text in any column.
    return lease if isinstance(lease, float) and lease > 0 else None


@dataclass(frozen=True, slots=True)
class Undeclared:
    """What a node has to declare again, and which of its entries it cannot declare.

    `shadowed` are names of entries that `add_periodic` has added, which the code does not replace.
    """

    entries: list[Periodic]
    shadowed: list[str]


def find_undeclared(
    tx: Transaction, name: str, entries: Iterable[Periodic], declared_at: datetime, lease: float
) -> Undeclared:
    """Find out, without writing, what `declare` would change. `declared_at` and `lease` are as there."""
    columns = (_entry.entry, _entry.declared, _entry.source, _entry.declared_at, _entry.seen_at, _entry.lease)
    tx.autocommit_next()
    time = tx.dialect.real_clock.now().label("read_at")
    rows = tx.execute(select(*columns, time).where(_entry.name == name))
    stored = {row.entry: row for row in rows}
    found = Undeclared([], [])
    for entry in entries:
        if (row := stored.get(entry.name)) is None:
            found.entries.append(entry)
            continue
        age = (row.read_at - row.seen_at).total_seconds()
        is_stale = age >= min(lease * _FRESH, MAX_INTERVAL)
        if row.source != CODE:
            found.shadowed.append(entry.name)
        elif row.declared_at <= declared_at:
            is_same = (row.declared_at, row.declared, row.lease) == (declared_at, entry.declared, lease)
            if is_stale or not is_same:
                found.entries.append(entry)
        elif age >= (_number(row.lease) or lease) * _ABANDONED:
            found.entries.append(entry)
    return found


def declare(
    tx: Transaction, name: str, entries: Sequence[Periodic], declared_at: datetime, lease: float = 60.0
) -> int:
    """Store the entries of a node's code, with one statement; returns how many were stored.

    What operators have changed (`paused` and `override`) stays, and so does `last_tick`. A new entry starts
    now. The newest code wins: `declared_at` is the start of the node by the database's clock, and a node does
    not replace what one that has started later declares, unless that has not been declared for most of the
    other node's lease. `lease` is that of this node, in seconds. Entries that `add_periodic` has added are
    not replaced, and neither are those whose row another transaction has locked: this would keep the others
    locked while it waits.
    """
    if not entries:
        return 0
    # In the same order on every node, as each row is locked.
    rows = [
        {
            "entry": entry.name,
            "declared": entry.declared,
            "is_reboot": int(Cron.parse(entry.expression).is_reboot),
        }
        for entry in sorted(entries, key=lambda entry: entry.name)
    ]
    parameters = {
        "entries": encoding.dumps([{"n": n, **row} for n, row in enumerate(rows)]),
        "of_instance": name,
        "started": declared_at,
        "lease": lease,
    }
    # A node that is frozen before its COMMIT would keep the rows locked.
    tx.autocommit_next()
    return len(tx.rows(_declare_statement(tx.dialect), parameters))


@functools.cache
def _declare_statement(dialect: Dialect) -> Executable:
    name, started = bindparam("of_instance", type_=Text), bindparam("started", type_=UTCDateTime)
    lease = cast(bindparam("lease", type_=Double), Double)
    types: Any = {"n": BigInteger, "entry": Text, "declared": JSONDocument, "is_reboot": BigInteger}
    record = dialect.recordset("entries", types).c
    now = dialect.real_clock.now()
    floor = case((record.is_reboot == literal_column("1"), null()), else_=dialect.now())
    rows = select(name, record.entry, record.declared, sql_literal(CODE), started, now, lease, floor, now)
    stored = select(_entry.entry).where(_entry.name == name)
    if dialect.single_writer:
        rows = rows.where(true())
    else:
        wanted = dialect.recordset("entries", {"entry": Text}).c
        locked = stored.where(_entry.entry.in_(select(wanted.entry)))
        locked = locked.with_for_update(key_share=True, skip_locked=True, of=_entries)
        free = locked.cte("free").prefix_with("MATERIALIZED")
        is_new = ~stored.where(_entry.entry == record.entry).exists()
        rows = rows.where(or_(record.entry.in_(select(free.c.entry)), is_new))
    columns = [
        *("name", "entry", "declared", "source", "declared_at", "seen_at", "lease", "last_tick", "updated_at")
    ]
    insert: Any = dialect.insert(_entries).from_select(columns, rows.order_by(record.n))
    new = insert.excluded
    abandoned_after = func.coalesce(_entry.lease, lease) * literal_column(str(_ABANDONED))
    is_abandoned = _entry.seen_at <= dialect.real_clock.now_minus(abandoned_after)
    is_same = _entry.declared == new.declared
    statement: Executable = insert.on_conflict_do_update(
        index_elements=[_entry.name, _entry.entry],
        set_={
            "declared": new.declared,
            "declared_at": new.declared_at,
            "seen_at": now,
            "lease": new.lease,
            "updated_at": case((is_same, _entry.updated_at), else_=now),
        },
        where=and_(_entry.source == CODE, or_(_entry.declared_at <= new.declared_at, is_abandoned)),
    ).returning(_entry.entry)
    return statement


def initial_last_tick(tx: Transaction, expression: str) -> Any:
    """The `last_tick` of a new entry: no time before now fires, except the start of the present leader."""
    return null() if Cron.parse(expression).is_reboot else tx.dialect.now()


def delete_gone(tx: Transaction, name: str, age: float) -> int:
    """Delete the entries of the code that no node has declared for `age` seconds; returns how many."""
    is_gone = _entry.seen_at <= tx.dialect.real_clock.now_minus(bindparam("age", age))
    gone = select(_entry.entry).where(_entry.name == name, _entry.source == CODE, is_gone)
    gone = gone.with_for_update(skip_locked=True)
    tx.autocommit_next()
    result: Any = tx.execute(
        delete(_entries).where(_entry.name == name, tx.dialect.in_subquery(_entry.entry, gone))
    )
    return int(result.rowcount)
