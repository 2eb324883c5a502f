"""The table whose rows keep two transactions from inserting the same unique job."""

from typing import Any

from sqlalchemy import BigInteger, PrimaryKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column

from oban import ddl
from oban.models.base import Base
from oban.types import TRANSACTION_ID, KeyText


class UniqueKey(Base):
    """One row of `oban_unique_keys`: a `unique_key` of jobs, and the last transaction that inserted one.

    A transaction that inserts or retries a unique job locks the row of its key. On SQLite the table stays
    empty, because only one transaction can write at a time.

    Attributes:
        key: The `unique_key` of jobs.
        turn: The last transaction that inserted a job with this key. The leader deletes rows of transactions
            that have ended.
    """

    __tablename__ = "oban_unique_keys"
    __table_args__: Any = (PrimaryKeyConstraint("key", name="oban_unique_keys_pkey"),)

    key: Mapped[str] = mapped_column(KeyText)
    turn: Mapped[int] = mapped_column(BigInteger, server_default=TRANSACTION_ID)


ddl.attach_to_keys(UniqueKey.__table__)
