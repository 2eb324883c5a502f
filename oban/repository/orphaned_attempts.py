"""Delete the attempts whose jobs were deleted by something else than Oban, in parts of the table.

Other implementations, older versions of Oban and applications delete jobs without their attempts, and there
is no foreign key.
"""

import functools
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Delete,
    Integer,
    Select,
    Text,
    bindparam,
    cast,
    delete,
    func,
    literal_column,
    select,
)
from sqlalchemy.types import UserDefinedType

from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.models import Attempt, Job

_attempts = Attempt.__table__

#: How much of the table one statement reads: blocks on PostgreSQL, each with about 60 rows; rows on SQLite.
BLOCKS = 100
ROWS = 5000


class _Address(UserDefinedType[Any]):
    """The type of `ctid`."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "TID"


def table_size(tx: Transaction) -> int:
    """Where the table of the attempts ends."""
    return tx.execute(_size_statement(tx.dialect)).scalar() or 0


def delete_orphans(tx: Transaction, start: int) -> int:
    """Delete the attempts without a job in the part of the table that begins at `start`.

    Returns where the next part begins. The first one begins at 0.
    """
    end = start + (BLOCKS if tx.dialect.has_range_index else ROWS)
    address = "({},0)".format if tx.dialect.has_range_index else int
    tx.execute(_delete_statement(tx.dialect), {"start": address(start), "end": address(end)})
    return end


@functools.cache
def _size_statement(dialect: Dialect) -> Select[Any]:
    if dialect.has_range_index:
        # By the table of a row, whatever its schema is.
        size = func.pg_relation_size(literal_column("tableoid"), type_=BigInteger)
        block = cast(func.current_setting("block_size"), Integer)
        return select(size // block).select_from(_attempts).limit(literal_column("1"))
    return select(func.max(_address(dialect)) + literal_column("1")).select_from(_attempts)


@functools.cache
def _delete_statement(dialect: Dialect) -> Delete:
    start, end = (_position(dialect, name) for name in ("start", "end"))
    address = _address(dialect)
    job = select(Job.__table__.c.id).where(Job.__table__.c.id == _attempts.c.job_id)
    # The offset keeps PostgreSQL from reading all jobs instead of looking up a few.
    has_job = job.correlate(_attempts).offset(literal_column("0")).exists()
    return delete(_attempts).where(address >= start, address < end, ~has_job)


def _position(dialect: Dialect, name: str) -> ColumnElement[Any]:
    if dialect.has_range_index:
        # Drivers would take a parameter of the type itself for a pair of numbers.
        return cast(cast(bindparam(name, type_=Text), Text), _Address())
    return bindparam(name, type_=BigInteger)


def _address(dialect: Dialect) -> ColumnElement[Any]:
    return literal_column(f"oban_attempts.{dialect.row_address}")
