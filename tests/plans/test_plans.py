"""With a million jobs, statements use their indexes, whatever statistics the planner has of the table."""

from typing import Any

import pytest
from sqlalchemy import URL

from tests.plans.calls import CALLS
from tests.plans.explain import explained
from tests.plans.table import DRAINED

#: Pages that any statement may read, and additional ones for each dead row that it reads.
PAGES = 200
PER_DEAD = 1


def number(result: Any) -> int:
    """How many jobs a call found or changed, given the jobs, their number or a single job."""
    if isinstance(result, int):
        return result
    return len(result) if isinstance(result, (list, set)) else int(result is not None)


@pytest.mark.parametrize("name", CALLS)
async def test_a_statement_reads_few_pages(jobs: URL, condition: str, name: str) -> None:
    call = CALLS[name]
    allowed = PAGES + call.rows * call.pages
    if call.walks and condition == "bloated":
        allowed += DRAINED * PER_DEAD
    result, plans = await explained(jobs, call.run)
    assert number(result) == call.found
    assert plans
    for plan in plans:
        shown = f"{plan.mode}, {plan.buffers} pages:\n{plan.shape}\n{plan.sql}"
        assert not plan.scans, shown
        assert set(plan.indexes) <= call.indexes, shown
        # Sorts rows that it locks in id order, for example, but not the waiting jobs.
        assert plan.sorted <= 2 * call.rows, shown
        assert plan.buffers <= allowed, shown
