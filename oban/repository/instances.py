"""Let instances of `Job` that the caller has show a row as a call has left it.

These are the instances that were passed to the call, and those in the caller's session.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping

from sqlalchemy import select
from sqlalchemy.orm import attributes, lazyload
from sqlalchemy.orm.attributes import instance_state

from oban import encoding, encryption
from oban.database.transaction import Transaction
from oban.models import COLUMN_KEYS, Job
from oban.repository.selection import Selection

#: In the `info` of an instance: `Selection.locked_at` of the call whose row it shows.
_SHOWS = "oban.shows"


def reload_instances(
    tx: Transaction, selection: Selection, ids: Iterable[int], written: Collection[str]
) -> None:
    """Load those of some jobs that the caller has instances of; `written` are the columns just written."""
    shown = sorted(id_ for id_ in ids if id_ in selection.instances or _session_instances(tx, id_))
    if shown:
        dialect = tx.dialect
        statement = select(Job).where(dialect.in_ids(Job.id, dialect.id_list())).options(lazyload("*"))
        rows = tx.orm_execute(statement, {"ids": shown}, populate_existing=True).scalars().all()
        refresh_instances(tx, selection, rows, dict.fromkeys(shown, written))


def refresh_instances(
    tx: Transaction, selection: Selection, rows: Iterable[Job], written: Mapping[int, Collection[str]]
) -> None:
    """Copy jobs that were loaded under their lock to the caller's instances, until a rollback.

    `written` has, by id, the columns that the call wrote.
    """
    undo: list[Callable[[], None]] = []

    def refresh() -> None:
        for row in rows:
            undo.append(_mark(tx, row, selection.locked_at))
            for instance in (*selection.instances.get(row.id, ()), *_subclass_instances(tx, row.id)):
                # An earlier call may get its answer after a later one, whose row the instance then shows.
                is_newer = instance_state(instance).info.get(_SHOWS, 0) > selection.locked_at
                if instance is not row and not is_newer:
                    undo.append(_copy(tx, row, instance, written[row.id], selection.locked_at))

    tx.after_commit(refresh)
    tx.on_rollback(undo)


def shown_by(selection: Selection) -> int:
    """The largest `locked_at` of the calls whose rows the passed instances show; 0 if there is none."""
    instances = itertools.chain.from_iterable(selection.instances.values())
    return max((instance_state(instance).info.get(_SHOWS, 0) for instance in instances), default=0)


def _session_instances(tx: Transaction, id_: int) -> list[Job]:
    """The session's instances of a job: of `Job`, and of each subclass that the application has mapped."""
    keys = (mapper.identity_key_from_primary_key((id_,)) for mapper in Job.__mapper__.self_and_descendants)
    instances = (tx.session.identity_map.get(key) for key in keys)
    return [instance for instance in instances if isinstance(instance, Job)]


def _subclass_instances(tx: Transaction, id_: int) -> list[Job]:
    # Loading a `Job` does not refresh these.
    return [instance for instance in _session_instances(tx, id_) if type(instance) is not Job]


def _mark(tx: Transaction, job: Job, locked_at: int) -> Callable[[], None]:
    """Note which call a loaded job shows; returns what a rollback has to do."""
    info = instance_state(job).info
    before = info.get(_SHOWS, 0)
    info[_SHOWS] = locked_at

    def undo() -> None:
        info[_SHOWS] = before
        # When a savepoint is rolled back, the session itself only expires what was flushed in it.
        if job in tx.session:
            tx.session.expire(job, COLUMN_KEYS)

    return undo


def _copy(
    tx: Transaction, row: Job, instance: Job, written: Collection[str], locked_at: int
) -> Callable[[], None]:
    """Let an instance show a row as if it had been loaded; returns what a rollback has to do.

    Changes that the instance's session has yet to flush stay, except in `written` columns.
    """
    state = instance_state(instance)
    values, shown_before = dict(instance.__dict__), state.info.get(_SHOWS, 0)
    unflushed = set(COLUMN_KEYS) - state.unmodified if state.session is not None else set()
    copied = [key for key in COLUMN_KEYS if key not in unflushed or key in written]
    for key in copied:
        attributes.set_committed_value(instance, key, encoding.copied(getattr(row, key)))
    if encryption.is_used and "_run" in instance.__dict__:
        # A worker has changed its own job, and sees plain args as before.
        encryption.reveal(instance)
    state.info[_SHOWS] = locked_at

    def undo() -> None:
        if state.info[_SHOWS] != locked_at:
            return
        state.info[_SHOWS] = shown_before
        if instance in tx.session:
            tx.session.expire(instance, COLUMN_KEYS)
            return
        for key in copied:
            if key not in values:
                instance.__dict__.pop(key, None)
            elif key in unflushed:
                setattr(instance, key, values[key])
            else:
                attributes.set_committed_value(instance, key, values[key])

    return undo
