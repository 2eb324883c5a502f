"""`Shown`: a job as a row of the list, without what the user may not see and without long values."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Integer, Select, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only

from oban import error_texts, redaction
from oban.dialects import portable
from oban.documents.jobs import texts
from oban.job_search import query
from oban.job_search.query import Query
from oban.models import Job
from oban.progress import Progress
from oban.types import ENDED_STATES, JobState
from oban.web import hiding
from oban.web.jobs.orders import Order, Place
from oban.web.visit import Visit

#: Bytes of args, meta, errors and tags together, above which the list does not load them.
LARGE = 100_000
#: Characters of args and errors, and tags, that a row has.
TEXT, TAGS = 120, 4

_SMALL = (
    *(Job.id, Job.state, Job.queue, Job.worker, Job.attempt, Job.max_attempts, Job.priority),
    *(Job.inserted_at, Job.scheduled_at, Job.attempted_at),
    *(Job.completed_at, Job.cancelled_at, Job.discarded_at),
)
_DOCUMENTS = (Job.args, Job.meta, Job.errors, Job.tags)


@dataclass(frozen=True, slots=True)
class Shown:
    """A row of the list.

    Attributes:
        job: The job, as far as it is loaded, without what the user may not see.
        place: Its place in the order of the list.
        is_large: Whether its documents are too large for the list, so that they are not loaded.
        is_redacted: Whether it has redacted values. A large one may have some where that was checked.
    """

    job: Job
    place: Place
    is_large: bool
    is_redacted: bool

    @property
    def id(self) -> int:
        return self.job.id

    @property
    def state(self) -> str:
        return "unknown" if self.job.state is None else self.job.state.value

    @property
    def worker(self) -> str:
        return str(self.job.worker)

    @property
    def queue(self) -> str:
        return str(self.job.queue)

    @property
    def attempt(self) -> str:
        return f"{self.job.attempt}/{self.job.max_attempts}"

    @property
    def tags(self) -> list[str]:
        return [] if self.is_large else texts(self.job.tags)

    @property
    def args(self) -> str:
        """The args as JSON, cut."""
        if self.is_large or self.job.args == {}:
            return ""
        return short(_json(self.job.args))

    @property
    def error(self) -> str:
        """The last error in one line, cut; empty for a job that has completed since."""
        if self.is_large or self.job.state == JobState.COMPLETED:
            return ""
        return short(error_texts.last_error(self.job.errors))

    @property
    def progress(self) -> Progress | None:
        """The progress of an executing job."""
        if self.is_large or self.job.state != JobState.EXECUTING or not isinstance(self.job.meta, dict):
            return None
        found = Progress.parse(self.job.meta.get("progress"))
        return found if found is not None and found.attempt == self.job.attempt else None

    @property
    def when(self) -> tuple[str, datetime | None]:
        """What the time that matters for the state is, and the time."""
        state = self.job.state
        if state == JobState.EXECUTING:
            return "started", self.job.attempted_at
        if state in ENDED_STATES:
            return state.value, getattr(self.job, f"{state.value}_at")
        # A suspended job is not due at any time.
        if state == JobState.SUSPENDED:
            return "inserted", self.job.inserted_at
        if state == JobState.AVAILABLE:
            return "waiting since", self.job.scheduled_at
        return "due", self.job.scheduled_at

    @property
    def duration(self) -> float | None:
        """For how many seconds the last attempt ran, or has been running; None if that is not known."""
        job = self.job
        end = datetime.now(UTC) if job.state == JobState.EXECUTING else None
        if job.state in ENDED_STATES:
            end = getattr(job, f"{job.state.value}_at")
        if end is None or job.attempted_at is None:
            return None
        return max(0.0, (end - job.attempted_at).total_seconds())

    def matches(self, asked: Query) -> bool:
        """Whether a job that the statement of a query has found can be shown as a result of it."""
        return not self.is_redacted or (not self.is_large and asked.matches(self.job))


async def load(
    visit: Visit, session: AsyncSession, statement: Select[Any], order: Order, *, checks: bool = False
) -> list[Shown]:
    """The jobs that a statement selects, in its order.

    `checks` says whether it matters which large jobs may have redacted values: to find out takes long.
    """
    jobs = await visit.oban.list_jobs(statement.options(load_only(*_SMALL)), session)
    if not jobs:
        return []
    # One job can have 4 MB of args, and redaction has to read all of them.
    size = sum((portable.per_database(_size_of(each), Integer()) for each in _DOCUMENTS[1:]),
               start=portable.per_database(_size_of(_DOCUMENTS[0]), Integer()))  # fmt: skip
    documents = select(Job).where(Job.id.in_([job.id for job in jobs]), size <= LARGE)
    found = await visit.oban.list_jobs(documents.options(load_only(*_DOCUMENTS)), session)
    small = {job.id for job in found}
    large = [job.id for job in jobs if job.id not in small] if checks else []
    hiding_some: set[int] = set()
    if large:
        may_hide = select(Job).where(Job.id.in_(large), query.may_hide()).options(load_only(Job.id))
        hiding_some = {job.id for job in await visit.oban.list_jobs(may_hide, session)}
    shown = []
    for job in jobs:
        # The place is taken before anything is hidden, and the session must not load what is missing.
        place, is_small = order.place(job), job.id in small
        session.expunge(job)
        is_redacted = redaction.hides(job) if is_small else job.id in hiding_some
        visible = hiding.job(job, visit.access) if is_small else job
        shown.append(Shown(visible, place, not is_small, is_redacted))
    return shown


def _size_of(column: Any) -> Any:
    return lambda documents: documents.stored_size(column)


def short(text: str) -> str:
    """A text that is cut to what a row has room for."""
    return text if len(text) <= TEXT else f"{text[: TEXT - 1]}…"


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError, RecursionError):
        return "…"
