"""What instances of a job show after a call: those of the caller's session, and those that were passed."""

from collections.abc import Callable, Collection, Iterable, Mapping
from copy import deepcopy

from sqlalchemy import select
from sqlalchemy.orm import attributes, lazyload
from sqlalchemy.orm.attributes import instance_state

from oban.database.transaction import Transaction
from oban.models import COLUMN_KEYS, Job
from oban.repository.selection import Selection

_SEEN = "oban.seen"


def refresh(tx: Transaction, named: Selection, ids: Iterable[int], written: Collection[str]) -> None:
    """Let instances show the rows with some ids, of which a call has just written some columns."""
    wanted = sorted({id_ for id_ in ids if id_ in named.instances or _held(tx, id_)})
    if wanted:
        dialect = tx.dialect
        statement = select(Job).where(dialect.in_ids(Job.id, dialect.id_list())).options(lazyload("*"))
        rows = tx.orm_execute(statement, {"ids": wanted}, populate_existing=True).scalars().all()
        show(tx, named, rows, dict.fromkeys(wanted, written))


def show(
    tx: Transaction, named: Selection, rows: Iterable[Job], written: Mapping[int, Collection[str]]
) -> None:
    """Let instances show `rows`, loaded just now; `written` is what the call wrote of each, by id."""
    undo: list[Callable[[], None]] = []

    def apply() -> None:
        for row in rows:
            undo.append(_note(tx, row, named.locked_at))
            for instance in (*named.instances.get(row.id, ()), *_kin(tx, row.id)):
                if instance is not row:
                    undo.extend(_show(tx, instance, row, written[row.id], named.locked_at))

    tx.after_commit(apply)
    tx.on_rollback(undo)


def _held(tx: Transaction, id_: int) -> list[Job]:
    """What the session has of a job: one of `Job`, and one of each class that an application made of it."""
    keys = (mapper.identity_key_from_primary_key((id_,)) for mapper in Job.__mapper__.self_and_descendants)
    return [held for key in keys if isinstance(held := tx.session.identity_map.get(key), Job)]


def _kin(tx: Transaction, id_: int) -> list[Job]:
    """Those of them that loading a `Job` does not refresh."""
    return [held for held in _held(tx, id_) if type(held) is not Job]


def _note(tx: Transaction, job: Job, locked_at: int) -> Callable[[], None]:
    info = instance_state(job).info
    before = info.get(_SEEN, 0)
    info[_SEEN] = locked_at

    def forget() -> None:
        info[_SEEN] = before
        # A savepoint that is rolled back expires what was flushed in it, and no more.
        if job in tx.session:
            tx.session.expire(job, COLUMN_KEYS)

    return forget


def _show(
    tx: Transaction, instance: Job, row: Job, written: Collection[str], locked_at: int
) -> list[Callable[[], None]]:
    """Let an instance of another session, or of none, show a row, as if it had been loaded now.

    What the application has set on one that its session will flush stays, but for what the call wrote
    itself. The answer to an earlier call changes nothing when it comes after that to a later one.
    """
    state = instance_state(instance)
    if state.info.get(_SEEN, 0) > locked_at:
        return []
    before, info = dict(instance.__dict__), state.info.get(_SEEN, 0)
    pending = set(COLUMN_KEYS) - state.unmodified if state.session is not None else set()
    shown = [key for key in COLUMN_KEYS if key not in pending or key in written]
    for key in shown:
        attributes.set_committed_value(instance, key, deepcopy(getattr(row, key)))
    state.info[_SEEN] = locked_at

    def undo() -> None:
        if state.info[_SEEN] != locked_at:
            return
        state.info[_SEEN] = info
        if instance in tx.session:
            tx.session.expire(instance, COLUMN_KEYS)
            return
        for key in shown:
            if key not in before:
                instance.__dict__.pop(key, None)
            elif key in pending:
                setattr(instance, key, before[key])
            else:
                attributes.set_committed_value(instance, key, before[key])

    return [undo]
