"""The statement that finds, claims and inserts unique jobs in one round trip, where a CTE can write.

It is exact because the condition of the claim compares what the statement's snapshot shows of a key with the
newest version of the row. If they differ, another transaction has claimed the key since the snapshot was
taken, and its job may not be visible: then the statement inserts nothing.
"""

import functools
from typing import Any

from sqlalchemy import Executable, Float, func, literal_column, null, or_, select, true, union_all

from oban.dialects.base import Dialect
from oban.guard import Look, conflicting_id
from oban.models import Job, UniqueKey
from oban.repository.insert_statements import (
    RETURNED,
    UNIQUE_COLUMNS,
    as_lists,
    record_source,
    stored_values,
)

_jobs: Any = Job.__table__
_keys: Any = UniqueKey.__table__


@functools.cache
def unique_statement(dialect: Dialect, look: Look) -> Executable:
    """Insert records whose keys differ and whose rules look for the same, unless a job is in the way.

    Returns a row for each record that is not inserted, with its `n` and the columns of the job in its way,
    and one row with `n` NULL and the lists of the inserted jobs: all of the other records, or none if a key
    was claimed meanwhile.
    """
    states, timestamp = look
    source = record_source(dialect, **UNIQUE_COLUMNS, period=Float).c
    record = select(*source).cte("record").prefix_with("MATERIALIZED").c
    is_unique = record.unique_key.is_not(None)
    conflict = conflicting_id(dialect, record.unique_key, record.period, states, timestamp)
    judged = (
        select(record.n, record.unique_key, conflict.label("id"))
        .where(is_unique)
        .cte("judged")
        .prefix_with("MATERIALIZED")
        .c
    )
    claimed = _claim(dialect, judged)
    new = _insert(dialect, record, judged, claimed)

    # LATERAL with a limit, so that rows are looked up by id, whatever the planner expects of `judged`.
    stored = select(*_jobs.c).where(_jobs.c.id == judged.id).limit(literal_column("1")).lateral("stored")
    in_the_way = select(
        judged.n, *stored.c, *(null().label(name) for name in ("now", "ids", "times", "states"))
    ).join_from(judged.n.table, stored, true())
    lists = select(null(), *(null() for _ in _jobs.c), *as_lists(new))
    return union_all(in_the_way, lists)


def _claim(dialect: Dialect, judged: Any) -> Any:
    """Claim the keys that no job is in the way of, in key order, as `oban.guard.claim` does."""
    free = select(judged.unique_key).where(judged.id.is_(None)).order_by(judged.unique_key)
    insert: Any = dialect.insert(_keys).from_select(["key"], free)
    seen = _keys.alias("seen").c
    turn = select(seen.turn).where(seen.key == literal_column("excluded.key")).scalar_subquery()
    return (
        insert.on_conflict_do_update(
            index_elements=["key"], set_={"turn": insert.excluded.turn}, where=_keys.c.turn == turn
        )
        .returning(_keys.c.key)
        .cte("claimed")
        .c
    )


def _insert(dialect: Dialect, record: Any, judged: Any, claimed: Any) -> Any:
    """Insert the records without a key, and those whose key was claimed; nothing if one was not."""
    free = select(func.count()).select_from(judged.n.table).where(judged.id.is_(None)).scalar_subquery()
    taken = select(func.count()).select_from(claimed.key.table).scalar_subquery()
    values = {
        **stored_values(dialect, record),
        **{column: record[column] for column in UNIQUE_COLUMNS},
    }
    rows = (
        select(*values.values())
        .join_from(record.n.table, claimed.key.table, claimed.key == record.unique_key, isouter=True)
        .where(or_(record.unique_key.is_(None), claimed.key.is_not(None)), free == taken)
        .order_by(record.n)
    )
    insert = dialect.insert(_jobs).from_select([*values], rows)
    return insert.returning(*RETURNED).cte("new").c
