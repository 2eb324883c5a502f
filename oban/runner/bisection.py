"""Rows that make a statement fail for all must not be in the way of the others."""

import logging
from collections.abc import Awaitable, Callable, Sequence

from oban import dialects
from oban.dialects.base import Dialect

logger = logging.getLogger("oban.runner")


async def bisect_failures(
    dialect: Dialect, ids: Sequence[int], what: str, act: Callable[[Sequence[int]], Awaitable[object]]
) -> list[int]:
    """Do something to jobs, in ever smaller parts where it fails; the ids of those that refuse it.

    Raises what is not the fault of a row: a database that is away, say.
    """
    if not ids:
        return []
    try:
        await act(ids)
    except Exception as error:
        if dialect.is_retryable(error):
            raise
        if len(ids) == 1:
            logger.error("job %s cannot be %s: %s", ids[0], what, dialects.driver_error(error))
            return list(ids)
        middle = len(ids) // 2
        refused = await bisect_failures(dialect, ids[:middle], what, act)
        return refused + await bisect_failures(dialect, ids[middle:], what, act)
    return []
