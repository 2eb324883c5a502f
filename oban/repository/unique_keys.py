"""Deletes the rows of unique keys that no job has any more."""

import functools
from collections.abc import Collection

from sqlalchemy import Executable, bindparam, delete, exists, select

from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.models import Job, UniqueKey
from oban.types import OLDEST_TRANSACTION, TextList

#: How many keys one statement looks at.
BATCH = 5000

_keys = UniqueKey.__table__
_key = _keys.c
_HAS_JOB = exists().where(Job.__table__.c.unique_key == _key.key)
# Such a transaction may be about to insert a job with this key.
_IS_CLAIMED = _key.turn >= OLDEST_TRANSACTION


def delete_keys(tx: Transaction, keys: Collection[str]) -> list[str]:
    """Delete those of up to `BATCH` keys that no job has.

    Returns the keys without jobs that stay, because a transaction that is still running may have claimed
    them. They can be deleted later.
    """
    dialect = tx.dialect
    deleted = set(tx.execute(_delete_statement(dialect), {"keys": list(keys)}).scalars())
    if not (rest := [key for key in keys if key not in deleted]):
        return []
    named = dialect.in_ids(_key.key, bindparam("keys", type_=TextList))
    return list(tx.execute(select(_key.key).where(named, ~_HAS_JOB), {"keys": rest}).scalars())


def keys_after(tx: Transaction, key: str) -> list[str]:
    """The next `BATCH` keys after one in their order, whether jobs have them or not."""
    tx.autocommit_next()
    statement = select(_key.key).where(_key.key > key).order_by(_key.key).limit(BATCH)
    return list(tx.execute(statement).scalars())


@functools.cache
def _delete_statement(dialect: Dialect) -> Executable:
    named = dialect.in_ids(_key.key, bindparam("keys", type_=TextList))
    # Rows that are locked are being claimed. The condition is there twice, as a row can be claimed after the
    # snapshot of the statement and before it is locked.
    unused = (
        select(_key.key).where(named, ~_IS_CLAIMED, ~_HAS_JOB).limit(BATCH).with_for_update(skip_locked=True)
    )
    return delete(_keys).where(dialect.in_subquery(_key.key, unused), ~_IS_CLAIMED).returning(_key.key)
