"""`Selection`: the jobs that a bulk action is about, in batches, as far as the user may know of them."""

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import and_, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only

from oban import clock
from oban.errors import InvalidArgument
from oban.filters import Condition
from oban.job_search import query
from oban.job_search.conditions import unindexed_state
from oban.job_search.query import Query
from oban.models import Job
from oban.repository.selection import MAX_ID
from oban.types import JobState
from oban.web.errors import WebError
from oban.web.jobs import search, shown_jobs
from oban.web.jobs.orders import ORDERS, sorting
from oban.web.visit import Visit

#: How many ids a selection can have.
MAX_IDS = 1_000
#: Ids in a window of a whole search at most.
MAX_WINDOW = 32_000
#: Jobs with redacted values that a window can have.
MAX_HIDING = 200
#: Jobs that a preview shows.
EXAMPLES = 5
#: Seconds after which a request begins no further batch.
BUDGET = 0.08


@dataclass(frozen=True, slots=True)
class Selection:
    """The jobs with some ids, or those that match a whole search.

    Attributes:
        query: The search.
        ids: The ids; empty for a whole search.
        below: Of a whole search, only jobs with smaller ids are left.
        at: When the user looked at what the search finds: what changed since then is not meant.
    """

    query: Query
    ids: tuple[int, ...] = ()
    below: int = MAX_ID
    at: datetime | None = None

    @property
    def is_whole(self) -> bool:
        return not self.ids

    def parameters(self) -> dict[str, Any]:
        """The parameters of an address or a form that `parse` reads as the same selection."""
        if not self.is_whole:
            return {"id": list(self.ids), "q": str(self.query) or None}
        at = None if self.at is None else self.at.isoformat()
        return {"all": 1, "q": str(self.query) or None, "below": self.below, "at": at}

    def condition(self, *, by_state: bool = False) -> Condition:
        """What the stored values of a selected job have to be, apart from its id.

        Args:
            by_state: Whether the rows can be found by an index on the state.
        """
        if not self.is_whole:
            return true()
        found = self.query.widened(by_state=by_state)
        times = (Job.attempted_at, Job.completed_at, Job.cancelled_at, Job.discarded_at)
        unchanged = [or_(each.is_(None), each <= self.at) for each in times] if self.at else []
        return and_(true() if found is None else found, *unchanged)


def parse(visit: Visit, given: Any) -> Selection:
    """The selection of an address or of a form; raises `WebError`.

    Args:
        visit: The request.
        given: The parameters, which can have several values.
    """
    try:
        found = query.parse(str(given.get("q") or ""))
        found.refuse_hidden(visit.access.hidden)
        found.condition()
    except InvalidArgument as error:
        raise WebError(f"{error}.") from None
    if given.get("all"):
        return Selection(found, (), _id(given.get("below"), MAX_ID), _at(given.get("at")))
    ids = tuple(dict.fromkeys(_id(each, 0) for each in given.getlist("id")))
    if not ids:
        raise WebError("Select jobs first, or all jobs that match.")
    if len(ids) > MAX_IDS:
        raise WebError(f"At most {MAX_IDS:,} jobs can be selected one by one: select all jobs that match.")
    return Selection(found, ids)


async def begun(visit: Visit, selection: Selection, session: AsyncSession) -> Selection:
    """A whole search, bound to the jobs that there are now."""
    if not selection.is_whole or selection.at is not None:
        return selection
    newest = await visit.oban.list_jobs(
        select(Job).options(load_only(Job.id)).order_by(Job.id.desc()).limit(1), session
    )
    largest = newest[0].id if newest else 0
    return replace(selection, below=min(selection.below, largest + 1), at=clock.now())


@dataclass(slots=True)
class Walk:
    """The way of one request through a whole search: windows of ids, from the newest to the oldest."""

    visit: Visit
    selection: Selection
    #: Whether so few jobs are in the states of the search that one window has all of them.
    few: bool = False
    window: int = MAX_WINDOW
    started: float = field(default_factory=time.monotonic)

    @property
    def is_over(self) -> bool:
        """Whether the request has no time for another window."""
        return time.monotonic() - self.started > BUDGET

    async def next_window(self, session: AsyncSession) -> tuple[int, int] | None:
        """The least and the largest id of the next window; None at the end."""
        # Ids can have large gaps: the window begins with an id that exists.
        statement = select(Job).options(load_only(Job.id)).where(Job.id < self.selection.below)
        first = await self.visit.oban.list_jobs(statement.order_by(Job.id.desc()).limit(1), session)
        if not first:
            return None
        return 1 if self.few else max(1, first[0].id - self.window + 1), first[0].id

    def go_on(self, lowest: int) -> None:
        """Leave a window behind. The next one is larger if there was time for it."""
        self.selection = replace(self.selection, below=lowest)
        if time.monotonic() - self.started < BUDGET / 4:
            self.window = min(MAX_WINDOW, self.window * 2)

    async def redacted(
        self, conditions: Sequence[Condition], session: AsyncSession
    ) -> tuple[list[shown_jobs.Shown], int | None]:
        """The jobs that may have redacted values, and the least id of them if there are more."""
        statement = select(Job).where(*conditions, query.may_hide()).order_by(Job.id.desc()).limit(MAX_HIDING)
        found = await shown_jobs.load(self.visit, session, statement, ORDERS["newest"], checks=True)
        return found, found[-1].id if len(found) == MAX_HIDING else None


async def begin_walk(visit: Visit, selection: Selection) -> Walk:
    """A walk through a whole search. It can take a connection, so the caller must have none."""
    sample = await visit.instance.live.sample()
    few = search.few(sample.counts, sample.truncated, selection.query.states)
    return Walk(visit, selection, few, search.first_window(selection.query))


async def count(walk: Walk, session: AsyncSession) -> tuple[Counter[str], Selection | None]:
    """Count the selected jobs by state, as far as the time allows; returns the rest to be counted, if any."""
    visit, selection = walk.visit, walk.selection
    if not selection.is_whole:
        return await _by_state(visit, [Job.id.in_(selection.ids)], session), None
    counts: Counter[str] = Counter()
    while (bounds := await walk.next_window(session)) is not None:
        lowest, highest = bounds
        conditions = [selection.condition(by_state=walk.few)]
        if selection.query.needs_check:
            within = [Job.id.between(lowest, highest), *conditions]
            redacted, least = await walk.redacted(within, session)
            lowest = lowest if least is None else least
            counts.update(each.state for each in redacted if each.matches(selection.query))
            conditions.append(~query.may_hide())
        counts += await _by_state(visit, [Job.id.between(lowest, highest), *conditions], session)
        walk.go_on(lowest)
        if walk.is_over:
            return counts, walk.selection
    return counts, None


async def _by_state(visit: Visit, conditions: Sequence[Condition], session: AsyncSession) -> Counter[str]:
    counts: Counter[str] = Counter()
    for by_state in (await visit.oban.count_jobs(select(Job).where(*conditions), session)).values():
        counts.update({str(state).lower(): number for state, number in by_state.items() if number})
    return counts


async def batch(
    walk: Walk, states: Sequence[JobState], most: int, session: AsyncSession
) -> dict[str, list[int]] | None:
    """The ids of the next jobs in some states, by state; None at the end. The walk goes on behind them."""
    bounds = await walk.next_window(session)
    if bounds is None:
        return None
    lowest, highest = bounds
    asked = walk.selection.query
    conditions = [walk.selection.condition(by_state=walk.few), unindexed_state(*states)]
    statement = select(Job).options(load_only(Job.id, Job.state))
    statement = statement.where(Job.id.between(lowest, highest), *conditions)
    order = sorting(ORDERS["newest"], unindexed=walk.few)
    found = await walk.visit.oban.list_jobs(statement.order_by(*order).limit(most), session)
    if len(found) == most:
        lowest = found[-1].id
    left_out: set[int] = set()
    if asked.needs_check and found:
        redacted, least = await walk.redacted([Job.id.in_([job.id for job in found])], session)
        lowest = lowest if least is None else max(lowest, least)
        left_out = {each.id for each in redacted if not each.matches(asked)}
    ids: dict[str, list[int]] = {}
    for job in found:
        if job.id >= lowest and job.id not in left_out:
            ids.setdefault(str(job.state), []).append(job.id)
    walk.go_on(lowest)
    return ids


async def of_ids(
    visit: Visit, ids: Sequence[int], states: Sequence[JobState], session: AsyncSession
) -> dict[str, list[int]]:
    """Those of some ids whose jobs are in some states, by state."""
    statement = select(Job).options(load_only(Job.id, Job.state))
    statement = statement.where(Job.id.in_(ids), unindexed_state(*states)).order_by(Job.id.desc())
    found: dict[str, list[int]] = {}
    for job in await visit.oban.list_jobs(statement, session):
        found.setdefault(str(job.state), []).append(job.id)
    return found


def in_state(selection: Selection, state: str) -> Condition:
    """Whether a job is still selected, and still in a state."""
    return and_(selection.condition(), unindexed_state(state))


def counted_from(selection: Selection, text: Any) -> Selection:
    """What is left to be counted of a whole search, as an address tells."""
    return replace(selection, below=_id(text, selection.below)) if selection.is_whole else selection


async def examples(walk: Walk, states: Sequence[JobState], session: AsyncSession) -> list[shown_jobs.Shown]:
    """Some of the jobs that an action applies to, as the user may see them: of the newest window."""
    ids: Sequence[int] = walk.selection.ids
    while walk.selection.is_whole and not ids and not walk.is_over:
        found = await batch(walk, states, EXAMPLES, session)
        if found is None:
            break
        ids = [each for some in found.values() for each in some]
    session.expunge_all()
    statement = select(Job).where(Job.id.in_(ids), unindexed_state(*states)).order_by(Job.id.desc())
    return await shown_jobs.load(walk.visit, session, statement.limit(EXAMPLES), ORDERS["newest"])


def _id(value: Any, default: int) -> int:
    text = str(value or "")
    if not text and default:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) <= MAX_ID):
        raise WebError(f"{text[:40]!r} is not the id of a job.")
    return int(text)


def _at(value: Any) -> datetime | None:
    if not value:
        return None
    try:
        return datetime.fromisoformat(str(value)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise WebError(f"{str(value)[:40]!r} is not a time.") from None


def counted(text: Any) -> Counter[str]:
    """Numbers by name, as an address has them: `available.12-completed.3`; raises `WebError`."""
    found = re.fullmatch(
        r"(?:[a-z]{1,12}\.\d{1,12}(?:-[a-z]{1,12}\.\d{1,12}){0,9})?", str(text or ""), re.ASCII
    )
    if found is None:
        raise WebError("The address has numbers that cannot be read: begin again.")
    pairs = (each.split(".") for each in found[0].split("-") if each)
    return Counter({name: int(number) for name, number in pairs})


def numbers(counts: Mapping[str, int]) -> str:
    """Numbers by name, as `counted` reads them."""
    return "-".join(f"{name}.{number}" for name, number in counts.items() if number)
