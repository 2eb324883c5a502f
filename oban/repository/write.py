"""Write new values to locked rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, bindparam, update

from oban.database.transaction import Transaction
from oban.models import Job
from oban.repository.instances import reload_instances
from oban.repository.selection import Selection


def write_same(tx: Transaction, selection: Selection, rows: Sequence[Row[Any]], **values: Any) -> None:
    """Write the same column expressions to some locked rows, and show them on the caller's instances."""
    if ids := [row.id for row in rows]:
        dialect = tx.dialect
        statement = update(Job).where(dialect.in_ids(Job.id, dialect.id_list())).values(values)
        tx.orm_execute(statement, {"ids": ids}, synchronize_session=False)
        reload_instances(tx, selection, ids, values)


def write_each(tx: Transaction, values: Mapping[int, Mapping[str, Any]]) -> None:
    """Write column values by id, with one statement for all jobs that get the same columns."""
    parameters: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for id_, changed in values.items():
        if changed:
            parameters.setdefault(tuple(sorted(changed)), []).append({"key": id_, **changed})
    table = Job.__table__
    for columns, rows in parameters.items():
        statement = (
            update(table)
            .where(table.c.id == bindparam("key"))
            .values({column: bindparam(column, type_=table.c[column].type) for column in columns})
        )
        tx.execute(statement, rows)
