"""Shows on the instances of a call what became of jobs of which some are unique."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Any

from sqlalchemy.orm import attributes

from oban import encoding
from oban.database.transaction import Transaction
from oban.models import COLUMN_KEYS, Job, identity_key
from oban.repository.insert_batch import Record, Row, show_inserted
from oban.unique import Replacement, Unique

#: What only a new job has.
_OF_NEW_JOBS = ("_schedule_in", "_sets_max_attempts", "_unique", "_replace")
#: The columns whose values can change in place.
_CONTAINERS = ("args", "meta", "tags", "errors", "attempted_by", "unique_rule")


@dataclass(eq=False, slots=True)
class Item:
    """One job of a call, and what has become of it."""

    job: Job
    record: Record
    rule: Unique | None
    replacement: Replacement
    #: The id, due time and state of the inserted job, and when it was inserted.
    inserted: Row | None = None
    inserted_at: datetime | None = None
    #: The columns of the stored job that is in the way.
    stored: dict[str, Any] | None = None
    #: An earlier job of the call with the same key. It is in the way, or `stored` is in the way of both.
    earlier: "Item | None" = None

    @property
    def key(self) -> str:
        key: str = self.record["unique_key"]
        return key


def show(
    tx: Transaction,
    items: Sequence[Item],
    stored: Mapping[int, dict[str, Any]],
    attach: bool,
    max_attempts: int | None,
) -> None:
    """Let each instance show its own job, or the one in its way.

    `stored` has the jobs that are in the way, by id, and those that the call has changed.
    """
    new = [item for item in items if item.inserted is not None]
    conflicts = [item for item in items if item.inserted is None]
    for inserted_at, group in groupby(new, key=lambda item: item.inserted_at):
        batch = list(group)
        rows = [item.inserted for item in batch if item.inserted is not None]
        if inserted_at is not None:
            show_inserted(tx, [item.job for item in batch], inserted_at, rows, attach, max_attempts)
    if attach and conflicts:
        # Called before the values change.
        tx.on_rollback([_undo(item.job) for item in conflicts])
    tx.after_commit(partial(_show, new, conflicts, stored))
    if attach:
        _attach(tx, [item.job for item in conflicts])


def _show(new: Iterable[Item], conflicts: Iterable[Item], stored: Mapping[int, dict[str, Any]]) -> None:
    for item in new:
        record, values = item.record, item.job.__dict__
        if "unique_key" in record:
            values["unique_key"], values["unique_rule"] = record["unique_key"], record["unique_rule"]
        if values["id"] in stored:
            # A later job of the call has changed it.
            _become(item.job, stored[values["id"]])
    for item in conflicts:
        values = item.job.__dict__
        for field in _OF_NEW_JOBS:
            values.pop(field, None)
        if item.stored is not None:
            _become(item.job, item.stored)
        elif item.earlier is not None:
            shown = item.earlier.job.__dict__
            _become(item.job, {key: shown[key] for key in COLUMN_KEYS})
        values["conflict"] = True
        item.job._mark_persistent()


def _become(job: Job, columns: Mapping[str, Any]) -> None:
    """Let an instance show a row, which other instances can show, too."""
    state = job.__dict__.get("_sa_instance_state")
    shown = {**columns, **{key: encoding.copied(columns[key]) for key in _CONTAINERS}}
    if state is None or not state.modified:
        job.__dict__.update(shown)
        return
    # Nothing that was assigned to the new job is to be written to the row.
    for key, value in shown.items():
        attributes.set_committed_value(job, key, value)


def _undo(job: Job) -> Callable[[], None]:
    restore = job._restore_on_rollback()

    def undo() -> None:
        restore()
        job.__dict__.pop("conflict", None)

    return undo


def _attach(tx: Transaction, jobs: Iterable[Job]) -> None:
    """Add instances to the session, except where it has one of the same job already."""
    known = tx.session.identity_map
    for job in jobs:
        if identity_key(job.__dict__["id"]) not in known:
            tx.attach([job])
