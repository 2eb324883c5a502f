"""Statements that list jobs, also page by page in the order of their ids."""

from typing import Any

from sqlalchemy import Select, select

from oban import compat
from oban.errors import InvalidTarget
from oban.models import Job
from oban.repository.selection import MAX_ID, Target, check_statement, parse_id

#: How many jobs `iterate_jobs` reads at a time.
BATCH = 1000
#: The parameter of LIMIT is an integer of 32 bits.
_MAX_LIMIT = 2**31 - 1


def page(statement: Select[Any] | None, limit: int | None, after: Target | None) -> Select[Any]:
    """A caller's statement, for the first `limit` jobs whose ids are larger than that of `after`.

    Raises `InvalidTarget` for a statement that is not a `select(Job)`, or cannot be read in pages.
    """
    if statement is None:
        statement = select(Job).order_by(Job.id)
    check_statement(statement)
    if limit is None and after is None:
        return statement
    by_id = statement.column_descriptions[0]["entity"].id
    is_ordered = not statement.compare(statement.order_by(None))
    is_limited = compat.is_limited(statement)
    if after is not None:
        if is_ordered and not statement.compare(statement.order_by(None).order_by(by_id)):
            raise InvalidTarget(
                "pages are in the order of ids, and the select(Job) has another one: leave out order_by(), or"
                " use order_by(Job.id)"
            )
        if is_limited:
            raise InvalidTarget(
                "a select(Job) with LIMIT, OFFSET, HAVING or DISTINCT ON cannot be read in pages; use"
                " select(Job).where(Job.id.in_(…)) with its ids"
            )
        statement = statement.where(by_id > max(0, min(parse_id(after), MAX_ID)))
    if limit is not None:
        if not statement.compare(statement.limit(None)):
            raise InvalidTarget("the select(Job) has a LIMIT of its own: leave out either of them")
        statement = statement.limit(min(limit, _MAX_LIMIT))
    if not is_ordered and not is_limited:
        statement = statement.order_by(by_id)
    return statement


def batch_size(statement: Select[Any] | None, batch: int | None) -> int:
    """How many jobs to read at a time: `batch`, or the statement's `yield_per`, or `BATCH`."""
    if batch is not None:
        return batch
    options = {} if statement is None else statement.get_execution_options()
    size: int = options.get("yield_per") or BATCH
    return size
