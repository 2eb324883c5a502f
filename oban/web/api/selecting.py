"""Which jobs a request is about, and how they are found bit by bit, within a bounded time."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from sqlalchemy import func, not_, select
from sqlalchemy.ext.asyncio import AsyncSession

from oban import clock, filters, redaction
from oban.documents.choice import Choice, Filters, decoded
from oban.errors import InvalidArgument
from oban.filters import Condition
from oban.job_search import query
from oban.models import Job
from oban.registry import registry
from oban.repository.selection import MAX_ID
from oban.types import STATES
from oban.web.access import Access
from oban.web.api.bodies import Body, Query
from oban.web.errors import Refused
from oban.web.visit import Visit

JobId = Annotated[int, Field(ge=1, le=MAX_ID)]
State = Literal[
    "available", "scheduled", "suspended", "executing", "retryable", "completed", "cancelled", "discarded"
]
Priority = Annotated[int, Field(ge=0, le=9)]
Text = Annotated[str, Field(min_length=1, max_length=1000)]
#: A hundred years: any time before is that of no job.
Age = Annotated[float, Field(ge=0, le=3_155_760_000, allow_inf_nan=False)]

#: Of how many ids the jobs are searched at first, and at most, and for how many seconds a request goes on.
WINDOW, MAX_WINDOW, BUDGET = 5_000, 50_000, 0.1


class FilterQuery(Query):
    """Filters in the query of a request. A job has to match each of them."""

    state: list[State] = Field(default_factory=list, description="Any of these states.")
    queue: list[Text] = Field(default_factory=list, description="Any of these queues.")
    worker: list[Text] = Field(default_factory=list, description="Any of these workers.")
    tag: list[Text] = Field(
        default_factory=list, description="All of these tags. Jobs with redacted fields do not match."
    )
    args: list[Text] = Field(
        default_factory=list,
        description="Values in the args: PATH=VALUE, such as customer.id=7, a PATH that has any value, or a"
        " JSON object that the args contain. Jobs with redacted fields do not match.",
    )
    meta: list[Text] = Field(default_factory=list, description="The same for the meta.")
    older_than: Age | None = Field(
        default=None, description="Seconds: jobs that were inserted longer ago than that."
    )
    newer_than: Age | None = Field(default=None, description="Seconds: jobs that were inserted since then.")
    priority: list[Priority] = Field(default_factory=list, description="Any of these priorities.")
    node: Text | None = Field(default=None, description="The last attempt was on this node.")
    q: str | None = Field(
        default=None,
        max_length=2000,
        description="A query in the language of the dashboard's search, such as state:available -tag:test."
        " Jobs with redacted fields do not match words and filters of tags, args and meta.",
    )


class JobFilter(FilterQuery, Body):
    """Filters in the body of a request. A job has to match each of them."""


def choice(
    visit: Visit,
    given: FilterQuery | None,
    ids: Sequence[int] = (),
    *,
    everything: bool = False,
) -> Choice:
    """The jobs that a request is about.

    Raises:
        Refused: A filter is about a field that is hidden from the user.
        InvalidFilter: A filter has a wrong value.
    """
    chosen = filters_of(given)
    _check(visit.access, chosen)
    made = Choice.of(chosen, ids, everything=everything)
    if {"tag", "args", "meta"} & chosen.keys() or query.parse(chosen.get("q", "")).needs_check:
        return Choice(ids=made.ids, filters=chosen, conditions=(*made.conditions, *_without_secrets()))
    return made


def filters_of(given: FilterQuery | None) -> Filters:
    """The filters that are set."""
    found: Any = {}
    if given is not None:
        values = given.model_dump(include=set(FilterQuery.model_fields))
        found = {name: value for name, value in values.items() if value not in (None, [])}
    chosen: Filters = found
    return chosen


def _check(access: Access, chosen: Filters) -> None:
    for name in ("args", "meta"):
        if name in chosen and not access.shows(name):
            raise Refused(f"{access.user} does not see {name}, and cannot filter by them.")
    if not access.shows("recorded") and any(map(_is_recorded, chosen.get("meta", ()))):
        raise Refused(f"{access.user} does not see recorded values, and cannot filter by them.")
    if "q" in chosen:
        # Raises the error about a text that is no query.
        Choice.of({"q": chosen["q"]})
        try:
            query.parse(chosen["q"]).refuse_hidden(access.hidden)
        except InvalidArgument as error:
            raise Refused(f"{str(error)[:1].upper()}{str(error)[1:]}.") from None


def _is_recorded(text: str) -> bool:
    """Whether a filter of meta is about what a job has recorded."""
    if text.lstrip().startswith("{"):
        found = decoded(text)
        return isinstance(found, dict) and not found.keys().isdisjoint(query.RECORDED)
    return re.split(r"[.=]", text, maxsplit=1)[0] in query.RECORDED


def _without_secrets() -> list[Condition]:
    """Conditions that leave out jobs with redacted fields, whose values a filter could find out."""
    workers = [name for name in list(registry) if redaction.names(name, None)]
    marked = filters.meta("redact").exists()
    return [not_(marked), *([Job.worker.not_in(workers)] if workers else [])]


async def bounds(session: AsyncSession) -> tuple[int, int]:
    """The smallest and the largest id of all jobs; 1 and 0 if there are none."""
    # One subquery for each: SQLite looks at all rows for two aggregates of one query.
    ends = (select(function(Job.id)).scalar_subquery() for function in (func.min, func.max))
    least, most = (await session.execute(select(*ends))).one()
    return (1, 0) if least is None else (least, most)


class Pace:
    """How large the next window is, and whether there is time for it."""

    def __init__(self) -> None:
        self.size = WINDOW
        self._began = self._last = clock.monotonic()

    def goes_on(self) -> bool:
        """Called after each window. The next one is larger if this one took little time."""
        now = clock.monotonic()
        took, self._last = now - self._last, now
        if took < BUDGET / 5:
            self.size = min(MAX_WINDOW, self.size * 2)
        return now - self._began + took < BUDGET


async def windows(
    session: AsyncSession,
    choice: Choice,
    after: int | None,
    *,
    newest_first: bool = False,
    lists: bool = False,
) -> AsyncIterator[tuple[Condition | None, int | None]]:
    """The conditions of ids under which jobs are searched, one after the other, while there is time.

    Each comes with the id that the search goes on from after it; None after the last one. `after` is the id
    that it begins after, None for the beginning. A list of jobs without conditions needs no windows.
    """
    if choice.ids or (lists and not choice.conditions):
        yield (None if after is None else Job.id < after if newest_first else Job.id > after), None
        return
    least, most = await bounds(session)
    pace = Pace()
    if newest_first:
        start = most + 1 if after is None else min(after, most + 1)
        while True:
            end = start - pace.size
            yield (Job.id < start) & (Job.id >= end), end if end > least else None
            if end <= least or not pace.goes_on():
                return
            start = end
    begin = least - 1 if after is None else max(after, least - 1)
    while True:
        last = begin + pace.size
        yield (Job.id > begin) & (Job.id <= last), last if last < most else None
        if last >= most or not pace.goes_on():
            return
        begin = last


def states_of(choice: Choice) -> frozenset[str]:
    """The states that the jobs can be in; all of them without a filter of states."""
    found = frozenset(choice.filters.get("state") or STATES)
    asked = query.parse(choice.filters.get("q", "")).states
    return found & frozenset(asked) if asked else found
