"""Finds the rows that make a statement fail, so that they do not hold up the rest of its batch."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from oban import dialects
from oban.dialects.base import Dialect

logger = logging.getLogger("oban.runner")

T = TypeVar("T")


async def bisect_failures(
    batch: list[T], act: Callable[[Sequence[T]], Awaitable[object]], is_outage: Callable[[Exception], bool]
) -> list[tuple[T, Exception]]:
    """Call `act`, which failed for a whole batch, for each half, and halve again each part that fails.

    Returns the items that `act` refuses even alone, with the errors. Raises an error that is not about an
    item, as `is_outage` decides. Items leave the front of `batch` when they are dealt with, so that it holds
    those that remain to be done when this raises.
    """
    refused: list[tuple[T, Exception]] = []
    sizes = _halves(len(batch))
    while sizes:
        size = sizes.pop()
        try:
            await act(batch[:size])
        except Exception as error:
            if is_outage(error):
                raise
            if size > 1:
                sizes += _halves(size)
                continue
            refused.append((batch[0], error))
        del batch[:size]
    return refused


def _halves(size: int) -> list[int]:
    """The sizes of the two halves, the one to try first at the end."""
    return [half for half in (size - size // 2, size // 2) if half]


async def bisect_jobs(
    dialect: Dialect, ids: Sequence[int], verb: str, act: Callable[[Sequence[int]], Awaitable[object]]
) -> list[int]:
    """Call `act` for all jobs of a failed batch but those that make it fail; log and return their ids."""
    refused = await bisect_failures(list(ids), act, dialect.is_retryable)
    for id_, error in refused:
        logger.error("job %s cannot be %s: %s", id_, verb, dialects.driver_error(error))
    return [id_ for id_, _ in refused]
