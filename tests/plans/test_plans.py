"""With a million jobs, statements use their indexes, whatever statistics the planner has of the table."""

from typing import Any

import pytest
from sqlalchemy import URL, select

from oban import Job
from oban.repository import counts
from tests.plans.calls import CALLS, ENDED, EXHAUSTED, QUEUE, STAGING
from tests.plans.explain import MODES, explained
from tests.plans.table import CONDITIONS, DRAINED, EXECUTING, JOBS, vacuum
from tests.support.processes import ROOT
from tests.support.rows import MADE
from tests.support.waiting import eventually

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


#: An application's statements, and the partial index that each of them uses.
APPLICATION = {
    EXHAUSTED: select(Job.id).where(Job.state == "available", Job.attempt >= Job.max_attempts),
    STAGING: select(Job.id).where(Job.state.in_(["retryable", "scheduled"]), Job.scheduled_at < MADE),
    **{
        index: select(Job.id).where(Job.state == state, Job.__table__.c[f"{state.value}_at"] < MADE)
        for state, index in ENDED.items()
    },
}


@pytest.mark.parametrize("index", APPLICATION)
async def test_a_state_in_an_applications_condition_uses_its_partial_index(
    jobs: URL, condition: str, index: str
) -> None:
    found, plans = await explained(jobs, lambda tx: tx.session.scalars(APPLICATION[index]).all())
    assert not found
    assert [plan.indexes for plan in plans] == [[index]] * len(MODES)


async def test_the_jobs_of_one_queue_are_counted_by_their_index(jobs: URL, condition: str) -> None:
    counted, plans = await explained(jobs, lambda tx: counts.count_jobs(tx, None, "few"))
    assert sum(counted["few"].values()) == JOBS // 50_000
    for plan in plans:
        assert not plan.scans, plan.shape
        assert plan.indexes == [QUEUE], plan.shape
        assert plan.buffers <= PAGES, plan.shape


async def test_all_jobs_are_counted_without_their_rows_after_a_vacuum(jobs: URL, condition: str) -> None:
    async def counted_by_index() -> bool:
        # A page that another session uses at this moment is left out, as is one with rows that it still sees.
        vacuum(jobs)
        counted, plans = await explained(jobs, lambda tx: counts.count_jobs(tx, None, None))
        assert sum(number for states in counted.values() for number in states.values()) == JOBS
        for plan in plans:
            assert not plan.scans, plan.shape
            assert plan.indexes == [QUEUE], plan.shape
        nodes = [node for plan in plans for node in plan.nodes]
        if any(node.get("Heap Fetches") for node in nodes):
            return False
        return all(plan.buffers < JOBS // 50 for plan in plans)

    # Without statistics, or after many changes, the planner prefers the table.
    if condition == "analyzed":
        await eventually(counted_by_index)


def test_the_page_about_the_planner_names_the_conditions_and_the_limit() -> None:
    page = (ROOT / "docs/explanation/planner.md").read_text()
    assert [name for name in CONDITIONS if f"| {name} |" not in page] == []
    assert JOBS == 1_000_000
    assert f"while {EXECUTING} do" in page
    assert f"but {DRAINED:,} jobs of a queue" in page
    assert f"more than {PAGES} pages" in page
