"""`GET api/jobs`, `api/jobs/{id}`, `api/jobs/{id}/why` and `api/counts`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Literal

from pydantic import Field
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from oban import dialects
from oban.diagnosis.explanation import Explanation
from oban.documents.choice import ORDERS, Choice, Sort
from oban.documents.jobs import JobDetails, JobDocument, job_details, job_document, json_text
from oban.documents.operations import DatabaseOperations
from oban.filters import Condition
from oban.models import Job
from oban.repository.selection import MAX_ID
from oban.repository.stage import is_waiting
from oban.types import STATES
from oban.web import hiding
from oban.web.api import cursors, selecting
from oban.web.api.bodies import Query
from oban.web.api.problems import Refusal
from oban.web.api.routing import ApiPage
from oban.web.api.selecting import FilterQuery
from oban.web.visit import Visit

#: A page ends when it has so many bytes, and it is read in parts that are expected to have a tenth of that.
MAX_BYTES = 16 * 1024 * 1024
_FIRST_PART = 20
#: How many jobs are sorted by the time at which they are due where no index has that order.
MOST_SORTED = 5_000
_WAITING = frozenset(("scheduled", "retryable"))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """A page of a list of jobs."""

    #: A page can have fewer jobs than the limit, also none, while there are more.
    jobs: list[JobDocument]
    #: The cursor of the next page; null at the end.
    next_cursor: str | None
    #: The address of the next page; null at the end.
    next: str | None


class ListQuery(FilterQuery):
    """What to list."""

    limit: int = Field(default=50, ge=1, le=500, description="How many jobs a page has at most.")
    sort: Literal["newest", "oldest", "due"] = Field(
        default="newest",
        description="The order: by id, or by the time at which jobs are due, which more than a few thousand"
        " jobs have in the states scheduled and retryable only.",
    )
    cursor: str | None = Field(default=None, max_length=500, description="`next_cursor` of the last page.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many jobs match, or, if there are too many jobs to count at once, how many of a part of them."""

    #: By state.
    counts: dict[str, int]
    #: The cursor for the next part, whose numbers are to be added; null at the end.
    next_cursor: str | None
    #: The address of the next part; null at the end.
    next: str | None


class CountQuery(FilterQuery):
    """What to count."""

    cursor: str | None = Field(default=None, max_length=500, description="`next_cursor` of the last part.")


async def list_(visit: Visit, query: ListQuery) -> JobPage:
    """`GET /api/jobs`."""
    choice = selecting.choice(visit, query)
    about = ["list", choice.filters, query.sort]
    position = None if query.cursor is None else cursors.read(about, query.cursor)
    if query.sort == "due":
        await _check_order(visit, choice)
    async with visit.read() as session:
        search = _search_by_time if query.sort == "due" else _search_by_id
        jobs, last = await search(visit, session, choice, query.sort, query.limit, position)
    cursor = None if last is None else cursors.make(about, last)
    link = _link(visit, "api/jobs", query, cursor)
    return JobPage(jobs=jobs, next_cursor=cursor, next=link)


async def _search_by_id(
    visit: Visit, session: AsyncSession, choice: Choice, sort: Sort, limit: int, position: Any
) -> tuple[list[JobDocument], Any]:
    """Jobs of a page, and where the next one begins: an id, or None."""
    newest_first = sort == "newest"
    found: list[JobDocument] = []
    size, following = 0, None
    after = _integer(position)
    async for window, end in selecting.windows(session, choice, after, newest_first=newest_first, lists=True):
        following = end
        within = [] if window is None else [window]
        while True:
            part = min(limit + 1 - len(found), _part(len(found), size))
            statement = select(Job).where(*choice.conditions, *within).order_by(*ORDERS[sort])
            jobs = await visit.oban.list_jobs(statement, session, limit=part)
            for job in jobs:
                if len(found) == limit or size > MAX_BYTES:
                    return found, found[-1].id
                document = _document(visit, job)
                size += _size(document)
                found.append(document)
            if len(jobs) < part:
                break
            last = jobs[-1].id
            within = [*within[:1], Job.id < last if newest_first else Job.id > last]
    return found, following


async def _check_order(visit: Visit, choice: Choice) -> None:
    """Refuse to sort many jobs by the time at which they are due where no index has that order."""
    states = selecting.states_of(choice)
    if choice.ids or states <= _WAITING:
        return
    sample = await visit.instance.live.sample()
    if states & sample.truncated or sum(sample.counts[state] for state in states) > MOST_SORTED:
        raise Refusal.of_field("sort", "too many jobs to sort: due needs the states scheduled or retryable")


async def _search_by_time(
    visit: Visit, session: AsyncSession, choice: Choice, sort: Sort, limit: int, position: Any
) -> tuple[list[JobDocument], Any]:
    """Jobs of a page, and where the next one begins: a time and an id, or None."""
    found: list[JobDocument] = []
    size = 0
    after = None if position is None else _time_and_id(position)
    indexed: list[Condition] = []
    if selecting.states_of(choice) <= _WAITING:
        indexed = [is_waiting(dialects.for_bind(visit.oban.engine.sync_engine))]
    pace = selecting.Pace()
    while True:
        end = await _end_of_window(session, [*indexed, *_later(after)], pace.size) if indexed else None
        while True:
            part = min(limit + 1 - len(found), _part(len(found), size))
            within = [*indexed, *_later(after), *_until(end)]
            statement = select(Job).where(*choice.conditions, *within).order_by(*ORDERS[sort])
            jobs = await visit.oban.list_jobs(statement, session, limit=part)
            for job in jobs:
                if len(found) == limit or size > MAX_BYTES:
                    return found, None if after is None else [after[0].isoformat(), after[1]]
                after = (job.scheduled_at, job.id)
                document = _document(visit, job)
                size += _size(document)
                found.append(document)
            if len(jobs) < part:
                break
        if end is None:
            return found, None
        after = end
        if not pace.goes_on():
            return found, [after[0].isoformat(), after[1]]


async def _end_of_window(
    session: AsyncSession, conditions: Sequence[Condition], size: int
) -> tuple[datetime, int] | None:
    """The time and id of the last job of the next window; None if that has all of the jobs."""
    order = select(Job.scheduled_at, Job.id).where(*conditions).order_by(*ORDERS["due"])
    row = (await session.execute(order.offset(size).limit(1))).one_or_none()
    return None if row is None else (row[0], row[1])


def _until(end: tuple[datetime, int] | None) -> list[Condition]:
    if end is None:
        return []
    at, job_id = end
    # The first condition is for the index.
    return [Job.scheduled_at <= at, or_(Job.scheduled_at < at, Job.id <= job_id)]


def _later(after: tuple[datetime, int] | None) -> list[Condition]:
    if after is None:
        return []
    at, job_id = after
    # The first condition is for the index.
    return [Job.scheduled_at >= at, or_(Job.scheduled_at > at, Job.id > job_id)]


def _time_and_id(position: Any) -> tuple[datetime, int]:
    try:
        at, job_id = position
        time = datetime.fromisoformat(at).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise Refusal.of_field("cursor", "it is not a cursor") from None
    return time, cursors.job_id(job_id)


def _integer(position: Any) -> int | None:
    return None if position is None else cursors.job_id(position)


def _part(number: int, size: int) -> int:
    """How many jobs to read next, so that they take a bounded amount of memory."""
    return _FIRST_PART if number == 0 else max(1, MAX_BYTES // 10 * number // max(size, 1))


def _document(visit: Visit, job: Job) -> JobDocument:
    key = hiding.unique_key(job, visit.access)
    return replace(job_document(hiding.job(job, visit.access)), unique_key=key)


def _size(document: JobDocument) -> int:
    return 1000 + sum(len(json_text(each)) for each in (document.args, document.meta, document.errors))


def _link(visit: Visit, path: str, query: Query, cursor: str | None) -> str | None:
    if cursor is None:
        return None
    values = {name: value for name, value in query.model_dump(exclude_unset=True).items() if value != []}
    return visit.link(path, **{**values, "cursor": cursor})


async def show(visit: Visit, query: Query) -> JobDetails:
    """`GET /api/jobs/{id}`."""
    job_id = id_of(visit)
    async with visit.read() as session:
        job, attempts = await DatabaseOperations(visit.oban, session).show_job(job_id)
    if job is None:
        raise _missing(job_id)
    key = hiding.unique_key(job, visit.access)
    details = job_details(hiding.job(job, visit.access, attempts), attempts)
    return replace(details, unique_key=key)


async def why(visit: Visit, query: Query) -> Explanation:
    """`GET /api/jobs/{id}/why`."""
    async with visit.read() as session:
        operations = DatabaseOperations(visit.oban, session)
        [explanation] = await operations.why([id_of(visit)])
        job, _ = await operations.show_job(explanation.job_id)
    return explanation if job is None else hiding.explanation(explanation, job, visit.access)


def id_of(visit: Visit) -> int:
    """The id in the path of a request; raises `Refusal` if no job can have it."""
    job_id: int = visit.request.path_params["id"]
    if not 0 < job_id <= MAX_ID:
        raise Refusal(HTTPStatus.NOT_FOUND, "There is no job with such an id.")
    return job_id


def _missing(job_id: int) -> Refusal:
    return Refusal(HTTPStatus.NOT_FOUND, f"There is no job {job_id}.")


async def count(visit: Visit, query: CountQuery) -> Counts:
    """`GET /api/counts`."""
    choice = selecting.choice(visit, query)
    about = ["count", choice.filters]
    after = _integer(None if query.cursor is None else cursors.read(about, query.cursor))
    async with visit.read() as session:
        found, following = await count_part(visit, session, choice, after)
    cursor = None if following is None else cursors.make(about, following)
    link = _link(visit, "api/counts", query, cursor)
    return Counts(counts={state: found[state] for state in STATES}, next_cursor=cursor, next=link)


async def count_part(
    visit: Visit, session: AsyncSession, choice: Choice, after: int | None
) -> tuple[Counter[str], int | None]:
    """The numbers of jobs by state, and the id after which the next part begins; None if there is none."""
    found: Counter[str] = Counter()
    following = None
    async for window, end in selecting.windows(session, choice, after):
        following = end
        within = [] if window is None else [window]
        statement = choice.statement().where(*within)
        for by_state in (await visit.oban.count_jobs(statement, session)).values():
            found.update({str(state): number for state, number in by_state.items()})
    return found, following


ROUTES = (
    ApiPage(
        path="/api/jobs",
        handler=list_,
        summary="List jobs",
        about="Pages stay stable while jobs are inserted. The header `Link` has the next page.",
        query=ListQuery,
        answer=JobPage,
    ),
    ApiPage(
        path="/api/jobs/{id:job_id}", handler=show, summary="Show a job and its attempts", answer=JobDetails
    ),
    ApiPage(
        path="/api/jobs/{id:job_id}/why",
        handler=why,
        summary="Explain why a job does not run",
        about="The first reason is the decisive one. A job that does not exist has one reason as well.",
        answer=Explanation,
    ),
    ApiPage(
        path="/api/counts", handler=count, summary="Count jobs by state", query=CountQuery, answer=Counts
    ),
)
