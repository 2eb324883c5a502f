"""Search for jobs page by page, at a cost that is bounded for a table of any size.

Without an index for a condition, the newest ids are searched first, in windows, until the page is full or the
time is over. The result then says how far the search has come, and the next request goes on from there.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, literal_column, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only

from oban import dialects
from oban.filters import Condition
from oban.job_search import conditions
from oban.job_search.query import Query
from oban.models import Job
from oban.web.jobs import orders, shown_jobs
from oban.web.jobs.orders import Order, Place
from oban.web.visit import Visit

#: Jobs that the first window has, and the most that a window can have. Documents take longer to compare.
WINDOW, MAX_WINDOW = 2_000, 32_000
PLAIN_FACTOR = 4
#: Seconds after which no further window is searched.
BUDGET = 0.05
#: Jobs in the states of a query, up to which all of them are searched at once.
FEW = 5_000


@dataclass(slots=True)
class Found:
    """What a search has found.

    Attributes:
        jobs: The jobs of the page, as the user may see them.
        further: Where the page after this one begins; None if no job comes after it, as far as is known.
        searched_to: Where the search has stopped before the page was full; None if all was searched.
    """

    jobs: list[shown_jobs.Shown] = field(default_factory=list)
    further: str | None = None
    searched_to: str | None = None


@dataclass(slots=True)
class Search:
    """A search for one page of jobs.

    Attributes:
        visit: The request.
        query: What is searched. It asks for nothing that is hidden from the user.
        order: The order of the list.
        size: How many jobs the page has.
        few: Whether only a few jobs are in the states of the query.
    """

    visit: Visit
    query: Query
    order: Order
    size: int
    few: bool = False

    async def page(self, session: AsyncSession, place: Place | None, *, backward: bool = False) -> Found:
        """The jobs after a place, or before it, in the order of the list."""
        found = Found()
        condition = self.query.widened(by_state=self.few)
        started, window = time.monotonic(), first_window(self.query)
        while True:
            began = time.monotonic()
            wanted = self.size + 1 - len(found.jobs)
            end = await self._end(session, place, window, backward)
            if end is _NOTHING:
                break
            statement = self._statement(condition, place, backward, end).limit(wanted)
            checks = self.query.needs_check
            jobs = await shown_jobs.load(self.visit, session, statement, self.order, checks=checks)
            found.jobs += [job for job in jobs if not checks or job.matches(self.query)]
            if len(found.jobs) > self.size:
                found.jobs.pop()
                found.further = str(found.jobs[-1].place)
                break
            if len(jobs) == wanted:
                # Some were left out after the statement had found them: the window has more.
                place = jobs[-1].place
                continue
            if end is None:
                break
            place = end
            found.searched_to = str(end)
            now = time.monotonic()
            if now - started > BUDGET or (now - started) + (now - began) * 2 > BUDGET * 2:
                return self._turned(found, backward)
            window = min(MAX_WINDOW, window * 2 if now - began < BUDGET / 4 else window)
        found.searched_to = None
        return self._turned(found, backward)

    def _turned(self, found: Found, backward: bool) -> Found:
        if backward:
            found.jobs.reverse()
        return found

    async def _end(self, session: AsyncSession, place: Place | None, window: int, backward: bool) -> Any:
        """The end of the next window; None for one that has all jobs, and `_NOTHING` if there is no job."""
        if self.few or any(
            term.key == "id" and not (term.negated or term.operator) for term in self.query.terms
        ):
            return None
        statement = (
            select(Job).options(load_only(Job.id, *self._columns)).where(*self._range(place, backward))
        )
        statement = statement.order_by(*orders.sorting(self.order, backward=backward)).limit(1)
        if self.order.column == "id":
            # Ids can have large gaps: the window begins with the first id after the place.
            first = await self.visit.oban.list_jobs(statement, session)
            if not first:
                return _NOTHING
            down = self.order.descending is not backward
            return Place(None, max(1, first[0].id - window + 1) if down else first[0].id + window - 1)
        last_of = await self.visit.oban.list_jobs(statement.offset(window), session)
        return self.order.place(last_of[0]) if last_of else None

    @property
    def _columns(self) -> tuple[Any, ...]:
        return () if self.order.column == "id" else (getattr(Job, self.order.column),)

    def _range(self, place: Place | None, backward: bool) -> list[Condition]:
        """Conditions that the index of the order knows."""
        found: list[Any] = []
        if place is not None:
            found.append(orders.beyond(self.order, place, backward=backward))
        if self.order.column != "id":
            found += [self._index(), getattr(Job, self.order.column).is_not(None)]
        name = self.order.column.removesuffix("_at")
        found += [
            conditions.condition(term) for term in self.query.terms if term.key == name and not term.negated
        ]
        return found

    def _index(self) -> Condition:
        """The condition of the partial index that has the order."""
        dialect = dialects.for_bind(self.visit.instance.sessions.engine.sync_engine)
        states = ", ".join(f"'{state}'" for state in self.order.states)
        is_one = len(self.order.states) == 1
        text: Any = literal_column(f"state = {states}" if is_one else f"state IN ({states})")
        return dialect.hint_partial_index(text)

    def _statement(
        self, condition: Condition | None, place: Place | None, backward: bool, end: Place | None
    ) -> Select[Any]:
        statement = select(Job).where(*self._range(place, backward))
        if end is not None:
            statement = statement.where(orders.until(self.order, end, backward=backward))
        if condition is not None:
            statement = statement.where(condition)
        return statement.order_by(*orders.sorting(self.order, backward=backward, unindexed=self.few))


_NOTHING = object()


def first_window(query: Query) -> int:
    """How many jobs the first window of a search has."""
    plain = all(term.key not in ("", "tag", "args", "meta", "node") for term in query.terms)
    return WINDOW * PLAIN_FACTOR if plain else WINDOW


def few(counts: dict[str, int], truncated: Sequence[str] | frozenset[str], states: Sequence[str]) -> bool:
    """Whether so few jobs are in these states that all of them can be searched at once."""
    return (
        bool(states)
        and not set(states) & set(truncated)
        and sum(counts.get(state, 0) for state in states) <= FEW
    )
