"""Why an assertion about enqueued jobs has failed: which jobs are there, the nearest match first."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import func, select

from oban import display, redaction, suggestions
from oban.database.transaction import Transaction
from oban.models import Job
from oban.registry import registry
from oban.testing.matching import Filter, OneOf, find
from oban.types import JobState

_job = Job.__table__.c
#: How many jobs a message shows, and how many differences of each.
SHOWN = 5
#: How many jobs are compared: the newest ones in general, and those that match all filters but one.
_COMPARED = 50
_ONLY_COMMITTED = (
    "It sees only what was committed. To see the jobs of a transaction that is open, pass its session as"
    " session=."
)
_NO_JOBS = (
    "There are no jobs at all. A job that was added to a session appears after a flush or commit of the"
    " session; pass the session as session= to flush it here."
)
_NO_JOBS_HERE = (
    "Another client of this name is on {}; jobs of that client, and of sessions on its engine, are not seen"
    " here."
)


class Place(NamedTuple):
    """Where jobs were looked for: which client, on which database, in which transaction."""

    client: str
    transaction: str
    #: Whether jobs of open transactions are not seen there.
    only_committed: bool
    #: For how many seconds.
    seconds: float
    #: The database of another client of this name, whose jobs are not seen there.
    elsewhere: str | None = None

    def __str__(self) -> str:
        period = f" for {self.seconds:g} seconds" if self.seconds else ""
        return f"{self.client} has looked{period} {self.transaction}."


class NearestJobs(NamedTuple):
    """The jobs that are nearest to the one that was wanted, and how many there are in all, by state."""

    #: Filters whose delays have become times.
    filters: Sequence[Filter]
    jobs: Sequence[Job]
    counts: dict[str, int]


def find_nearest(tx: Transaction, filters: Sequence[Filter]) -> NearestJobs:
    """Find the jobs that are nearest to what was wanted."""
    candidates = {job.id: job for job in find(tx, (), _COMPARED)}
    for one in filters:
        others = [each for each in filters if each is not one]
        candidates.update((job.id, job) for job in find(tx, others, SHOWN))
        if one.name == "worker":
            candidates.update((job.id, job) for job in find(tx, [one], _COMPARED))
    counted = tx.execute(select(_job.state, func.count()).group_by(_job.state))
    counts = {str(state): number for state, number in counted}

    def rank(job: Job) -> tuple[float, int]:
        return sum(each.distance(job) for each in filters), -job.id

    return NearestJobs(filters, sorted(candidates.values(), key=rank)[:SHOWN], counts)


def not_enqueued(wanted: Sequence[Filter], nearest: NearestJobs, place: Place) -> str:
    """The message of an assertion that found no job."""
    total = sum(nearest.counts.values())
    lines = ["no enqueued job matches", *_wanted(wanted, nearest.jobs), "", str(place)]
    if place.only_committed:
        lines.append(_ONLY_COMMITTED)
    lines += _about_workers(wanted, nearest.jobs)
    if not total:
        if place.elsewhere:
            lines.append(_NO_JOBS_HERE.format(place.elsewhere))
        return "\n".join([*lines, _NO_JOBS])
    lines += [f"These jobs are there, the nearest match first ({_counted(nearest.counts)}):", ""]
    for job in nearest.jobs:
        lines += _described(job)
        differences = [text for each in nearest.filters for text in each.differences(job)]
        lines += (f"      {text}" for text in differences[:SHOWN])
        if len(differences) > SHOWN:
            lines.append(f"      and {len(differences) - SHOWN} more differences")
    if total > len(nearest.jobs):
        lines.append(f"  and {total - len(nearest.jobs):,} more")
    return "\n".join(lines)


def unexpectedly_enqueued(unwanted: Sequence[Filter], jobs: Sequence[Job], place: Place) -> str:
    """The message of an assertion that found jobs which should not be there."""
    lines = ["no enqueued job should match", *_wanted(unwanted, jobs), "", f"{place} These jobs match:", ""]
    for job in jobs[:SHOWN]:
        lines += _described(job)
    if len(jobs) > SHOWN:
        lines.append("  and more")
    return "\n".join(lines)


def _wanted(filters: Sequence[Filter], jobs: Iterable[Job]) -> list[str]:
    workers = [each.values for each in filters if isinstance(each, OneOf) and each.name == "worker"]
    known = (redaction.names(name, None) for names in workers for name in names)
    redacted = frozenset[str]().union(*known, *(redaction.names_of(job) for job in jobs))
    return [f"  {each.label}: {each.redacted(redacted)}" for each in filters]


def _described(job: Job) -> list[str]:
    worker, queue = display.shown(job.worker, 100), display.shown(job.queue, 60)
    lines = [f"  job {job.id} of {worker} in the queue {queue}, {job.state}"]
    for name in ("args", "meta"):
        # Encrypted args are shown: only the tests have the jobs.
        if document := redaction.replaced(getattr(job, name), redaction.names_of(job)):
            lines.append(f"      {name}: {display.shown(document, 160)}")
    return lines


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{counts[state]:,} {state}" for state in JobState if counts.get(state))


def _about_workers(filters: Iterable[Filter], jobs: Iterable[Job]) -> list[str]:
    """A hint about names that no worker of this process has, nor a job. They can be right all the same."""
    wanted = [each for each in filters if isinstance(each, OneOf) and each.name == "worker"]
    known = {*registry, *(job.worker for job in jobs)}
    lines = []
    for name in (name for each in wanted for name in each.values if name not in known):
        near = suggestions.similar(name, known)
        hint = f"; did you mean {display.shown(near, 100)}?" if near else "."
        lines.append(f"No worker of this process is named {display.shown(name, 100)}{hint}")
    return lines[:SHOWN]
