"""The tabs of the list: the number of jobs in each state, as far as it is known without counting them."""

from collections import Counter
from dataclasses import dataclass

from oban.job_search.query import Query
from oban.types import STATES
from oban.web.sampler import LiveSample


@dataclass(frozen=True, slots=True)
class Tab:
    """A tab of the list.

    Attributes:
        state: Its state; None for all states.
        query: The search that it is for.
        count: The number of jobs, such as "12", "10,000+" or "≈ 980,000"; None if it is not known.
        is_current: Whether it is shown.
    """

    state: str | None
    query: Query
    count: str | None
    is_current: bool


def tabs(query: Query, sample: LiveSample) -> list[Tab]:
    """The tabs of a search, which only change its states.

    The sample knows the numbers by state and queue. With other filters, counting would cost more than the
    list, so that no numbers are shown.
    """
    rest = [term for term in query.terms if term.key != "state"]
    queues = None
    known = not any(term.key == "state" and term.negated for term in query.terms)
    for term in rest:
        names = {value for value in term.values if isinstance(value, str)}
        if term.key == "queue" and not term.negated and len(names) == len(term.values):
            queues = names if queues is None else queues & names
        else:
            known = False
    counts: Counter[str] = Counter()
    more: set[str] = set()
    for each in sample.stats.queues if known else ():
        if queues is None or each.queue in queues:
            counts.update(each.counts)
            more.update(each.truncated)
    found = [Tab(None, query.with_states(), None, not query.states)]
    for state in STATES:
        count = None
        if known:
            count = (
                f"{counts[state]:,}{'+' if state in more else ''}"
                if queues is not None
                else sample.number(state)
            )
        found.append(Tab(state, query.with_states(state), count, query.states == (state,)))
    return found
