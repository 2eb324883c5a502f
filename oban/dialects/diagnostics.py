"""What a check of a database's health asks, which each database answers in its own way."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection


class TableStorage(NamedTuple):
    """How a table is stored."""

    table: str
    live_rows: int
    #: Rows that were updated or deleted, and whose space was not freed yet.
    dead_rows: int
    bytes: int
    #: Whether the database removes dead rows of this table on its own.
    vacuums: bool


class FileSpace(NamedTuple):
    """The space that a database's file takes, in bytes, and how much of it is free."""

    bytes: int
    free: int


class OpenTransaction(NamedTuple):
    """A transaction, or something like it, that holds back the removal of dead rows, or has locked a row."""

    #: Who has opened it, as a clause: "process 123 (role app, psql, idle in transaction)".
    what: str
    seconds: float
    #: The statement that ends it.
    remedy: str


class Transactions(NamedTuple):
    """The transactions of a database."""

    open: list[OpenTransaction]
    #: How many transactions of other roles there are whose age this role may not see.
    hidden: int
    #: The statement that lets it.
    remedy: str


class Diagnostics(ABC):
    """The questions. By default, a database has none of these problems."""

    def limit(self, connection: Connection, seconds: float) -> None:  # noqa: B027 - not all can do it
        """Let statements in the rest of this transaction take no longer than this."""

    def unlimit(self, connection: Connection) -> None:  # noqa: B027
        """Undo `limit`, for a transaction that goes on after this."""

    @abstractmethod
    def version(self, connection: Connection) -> str:
        """The name and the version of the database."""

    def tables(self, connection: Connection, schema: str | None, names: Sequence[str]) -> list[TableStorage]:
        """How these tables are stored; nothing where rows leave no dead versions behind."""
        return []

    def estimated_states(self, connection: Connection, schema: str | None) -> dict[str, int]:
        """How many jobs there are of each frequent state, by the statistics of the planner; empty without."""
        return {}

    def space(self, connection: Connection) -> FileSpace | None:
        """The space in the database's file; None if it is not a file."""
        return None

    def transactions(self, connection: Connection, seconds: float) -> Transactions | None:
        """The transactions that are older than some seconds; None where they hold nothing back."""
        return None

    def locker(self, connection: Connection, schema: str | None, job_id: int) -> OpenTransaction | None:
        """The transaction that has locked the row of a job; None if there is none, or no row has locks."""
        return None

    def schemas(self, connection: Connection) -> list[str]:
        """The schemas that have a table of jobs; none where tables are in no schema."""
        return []
