"""Whether a transaction that the database has rolled back in favor of another one is tried again."""

import random

from sqlalchemy.exc import DBAPIError

from oban import clock
from oban.dialects.base import Dialect

#: How often a transaction is tried if the database rolls it back in favor of another one. After
#: `RETRY_WINDOW` seconds it is not tried again. The pause before the next try is random, with a limit in
#: seconds that doubles each time.
MAX_TRIES = 10
FIRST_PAUSE = 0.02
RETRY_WINDOW = 5.0

_LOCKED_ADVICE = (
    "SQLite has one writer at a time, and another transaction has not ended: if it is that of a session or"
    " connection of yours, pass it as session=, or commit it before this call"
)


class Retries:
    """Decides whether a transaction that failed is tried again, and after which pause."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._since = clock.monotonic()
        self._tries = 0

    def pause(self, error: DBAPIError) -> float:
        """Seconds to wait before the next try; raises `error` if there is none."""
        self._tries += 1
        late = clock.monotonic() - self._since >= RETRY_WINDOW
        if not self._dialect.is_transient(error):
            raise error
        if self._tries >= MAX_TRIES or late:
            if self._dialect.single_writer:
                error.add_detail(_LOCKED_ADVICE)
            raise error
        return random.uniform(0, FIRST_PAUSE) * 2.0 ** (self._tries - 1)  # noqa: S311 - jitter
