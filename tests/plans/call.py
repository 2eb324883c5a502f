"""What a plan test knows of a call."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oban.database.transaction import Transaction


@dataclass
class Call:
    """A call of a repository function by the runner, the indexes that it must use, and its cost limit.

    It reads or changes up to `rows` jobs, may read `pages` pages for each, and returns `found` of them.
    """

    run: Callable[[Transaction], Any]
    indexes: set[str]
    rows: int
    pages: int
    found: int
    #: Whether it reads dead rows of one state and queue that an old snapshot can still see.
    walks: bool = False
    #: Whether SQLite has the same statement.
    on_sqlite: bool = True
