"""What operators can do about periodic entries: list, pause, change, add, delete and run them."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Double, bindparam, case, delete, func, null, or_, select, update

from oban import encryption, periodic, suggestions
from oban.cron import Cron
from oban.database.transaction import Transaction
from oban.errors import ConfigError, InvalidJob, PeriodicInCode, PeriodicNotFound
from oban.models import Job, PeriodicEntry, Tick
from oban.periodic import Periodic, PeriodicInfo
from oban.repository import insert
from oban.repository.announce import announce_periodic
from oban.repository.periodic import CODE, RUNTIME, Entry, initial_last_tick, load_entries

_entries = PeriodicEntry.__table__
_entry = _entries.c
_tick = Tick.__table__.c

#: Checks the args of a worker's jobs, and returns them as they are stored. The arguments are the worker's
#: name and the args.
CheckArgs = Callable[[str, Any], dict[str, Any]]


def list_infos(tx: Transaction, name: str, lease: float, entry: str | None = None) -> list[PeriodicInfo]:
    """The entries of an instance, or the one of a name, by name.

    Entries of the code that no node has declared for the lease of the last one that did are gone. `lease`, in
    seconds, counts for rows that do not tell it.
    """
    statement = select(_entry.entry, _newest(_tick.tick), _newest(_tick.job_id)).where(_entry.name == name)
    if entry is not None:
        statement = statement.where(_entry.entry == entry)
    last = {row.entry: (row.tick, row.job_id) for row in tx.execute(statement)}
    entries = load_entries(tx, name, entry)
    return [_info(each, lease, *last.get(each.name, (None, None))) for each in entries]


def _newest(column: Any) -> ColumnElement[Any]:
    """A column of the newest tick of an entry."""
    return (
        select(column)
        .where(_tick.name == _entry.name, _tick.entry == _entry.entry)
        # The order of the primary key, backwards.
        .order_by(_tick.name.desc(), _tick.entry.desc(), _tick.tick.desc())
        .limit(1)
        .correlate(_entries)
        .scalar_subquery()
        .label(column.key)
    )


def _info(entry: Entry, lease: float, last_tick: Any, last_job_id: int | None) -> PeriodicInfo:
    values = entry.values
    gone = entry.is_gone(lease)
    expression, timezone = values.get("expression", ""), values.get("timezone", "UTC")
    try:
        next_at = None if entry.paused or gone else Cron.parse(expression, timezone).next_after(entry.read_at)
    # Another version can have stored what this one cannot parse.
    except ConfigError:
        next_at = None
    return PeriodicInfo(
        name=entry.name,
        expression=expression,
        timezone=timezone,
        worker=values.get("worker", ""),
        queue=values.get("queue", "default"),
        args=values.get("args", {}),
        priority=values.get("priority", 0),
        max_attempts=values.get("max_attempts"),
        tags=values.get("tags", []),
        meta=values.get("meta", {}),
        catch_up=values.get("catch_up", "latest"),
        window=values.get("window", periodic.DEFAULT_WINDOW),
        source=entry.source,
        paused=entry.paused,
        override=entry.override,
        gone=gone,
        last_tick=last_tick,
        last_job_id=last_job_id,
        next_at=next_at,
    )


def pause(tx: Transaction, name: str, entry: str) -> None:
    """Let an entry insert no jobs until it is resumed. Raises `PeriodicNotFound`."""
    _change(tx, name, entry, {"paused": True})


def resume(tx: Transaction, name: str, entry: str) -> None:
    """Let a paused entry insert jobs again, from now on. Raises `PeriodicNotFound`."""
    floor = case((_entry.paused, _from_now(tx)), else_=_entry.last_tick)
    _change(tx, name, entry, {"paused": False, "last_tick": floor})


def _from_now(tx: Transaction) -> ColumnElement[Any]:
    """A `last_tick` before which nothing fires: now, or later if it was later already."""
    now = tx.dialect.now()
    return case((_entry.last_tick > now, _entry.last_tick), else_=now)


def _change(tx: Transaction, name: str, entry: str, values: dict[str, Any]) -> None:
    statement = (
        update(_entries)
        .where(_entry.name == name, _entry.entry == entry)
        .values(**values, updated_at=tx.dialect.real_clock.now())
        .returning(_entry.entry)
    )
    if tx.execute(statement).one_or_none() is None:
        raise _not_found(tx, name, entry)
    announce_periodic(tx, name)


def _not_found(tx: Transaction, name: str, entry: str) -> PeriodicNotFound:
    known = list(tx.execute(select(_entry.entry).where(_entry.name == name)).scalars())
    hint = f"; the instance {name!r} has none at all: a node stores those of its code at its start"
    return PeriodicNotFound(entry, suggestions.suggestion(entry, known) if known else hint)


def _locked(tx: Transaction, name: str, entry: str) -> Entry:
    """Lock the row of an entry, and read it. Raises `PeriodicNotFound`."""
    tx.dialect.begin_write(tx.connection())
    # The lock comes first, as a statement that waits for it can return what it saw before.
    of_entry = (_entry.name == name, _entry.entry == entry)
    tx.execute(select(_entry.entry).where(*of_entry).with_for_update())
    if not (found := load_entries(tx, name, entry)):
        raise _not_found(tx, name, entry)
    return found[0]


def override(
    tx: Transaction, name: str, entry: str, changes: dict[str, Any], check_args: CheckArgs, lease: float
) -> PeriodicInfo:
    """Change some values of an entry, until they are reset. `changes` are checked already, but for `args`.

    If its times change, it starts now. Raises `PeriodicNotFound`, and `InvalidJob` for wrong args.
    """
    row = _locked(tx, name, entry)
    if "args" in changes:
        worker = str(row.values.get("worker"))
        args = check_args(worker, changes["args"])
        if encryption.is_unreadable(worker, row.values.get("args")) and not encryption.is_sealed(args):
            problem = f"of the entry {entry} are encrypted: import {worker}, which encrypts the new ones"
            raise InvalidJob("args", problem)
        changes = {**changes, "args": args}
    return _store_override(tx, name, row, {**row.override, **changes}, {**row.values, **changes}, lease)


def reset(tx: Transaction, name: str, entry: str, lease: float) -> PeriodicInfo:
    """Take back what `override` has changed. Raises `PeriodicNotFound`."""
    row = _locked(tx, name, entry)
    return _store_override(tx, name, row, None, row.declared, lease)


def _store_override(
    tx: Transaction,
    name: str,
    row: Entry,
    document: dict[str, Any] | None,
    values: dict[str, Any],
    lease: float,
) -> PeriodicInfo:
    changed: dict[str, Any] = {"override": null() if document is None else document}
    if any(values.get(key) != row.values.get(key) for key in ("expression", "timezone")):
        changed["last_tick"] = _from_now(tx)
    _change(tx, name, row.name, changed)
    return list_infos(tx, name, lease, row.name)[0]


def add(tx: Transaction, name: str, entry: Periodic, lease: float) -> PeriodicInfo:
    """Store an entry that no code declares. One that was added before is replaced, and goes on.

    Raises `PeriodicInCode` if the entry is one of the code and not gone; `lease` is as for `list_infos`.
    """
    now = tx.dialect.real_clock.now()
    insert_: Any = tx.dialect.insert(_entries).values(
        name=name,
        entry=entry.name,
        declared=entry.declared,
        source=RUNTIME,
        declared_at=now,
        seen_at=now,
        last_tick=initial_last_tick(tx, entry.expression),
        updated_at=now,
    )
    new = insert_.excluded
    statement = insert_.on_conflict_do_update(
        index_elements=[_entry.name, _entry.entry],
        set_={
            key: new[key] for key in ("declared", "source", "declared_at", "seen_at", "lease", "updated_at")
        },
        where=_is_not_in_code(tx, lease),
    ).returning(_entry.entry)
    if tx.execute(statement).one_or_none() is None:
        raise PeriodicInCode(
            f"the code declares a periodic entry {entry.name!r}: choose another name, or use update_periodic"
        )
    announce_periodic(tx, name)
    return list_infos(tx, name, lease, entry.name)[0]


def remove(tx: Transaction, name: str, entry: str, lease: float) -> None:
    """Delete an entry that no code declares. Raises `PeriodicNotFound` or `PeriodicInCode`."""
    statement = (
        delete(_entries)
        .where(_entry.name == name, _entry.entry == entry, _is_not_in_code(tx, lease))
        .returning(_entry.entry)
    )
    if tx.execute(statement).one_or_none() is None:
        if load_entries(tx, name, entry):
            raise PeriodicInCode(
                f"the code declares the periodic entry {entry!r}: remove it from the code, or pause it with"
                " pause_periodic"
            )
        raise _not_found(tx, name, entry)
    tx.execute(delete(Tick.__table__).where(_tick.name == name, _tick.entry == entry))
    announce_periodic(tx, name)


def _is_not_in_code(tx: Transaction, lease: float) -> ColumnElement[bool]:
    """Whether an entry was added at run time, or is one of the code that no live node declares."""
    gone_after = func.coalesce(_entry.lease, bindparam("default_lease", lease, Double))
    is_gone = _entry.seen_at <= tx.dialect.real_clock.now_minus(gone_after)
    return or_(_entry.source != CODE, is_gone)


def run_now(
    tx: Transaction, name: str, entry: str, attach: bool = False, max_attempts: int | None = None
) -> Job:
    """Insert a job of an entry now, in addition to those of its times. Raises `PeriodicNotFound`.

    `attach` and `max_attempts` are as for `insert_all`.
    """
    if not (found := load_entries(tx, name, entry)):
        raise _not_found(tx, name, entry)
    job = found[0].new_job()
    insert.insert_all(tx, [job], attach=attach, max_attempts=max_attempts)
    return job
