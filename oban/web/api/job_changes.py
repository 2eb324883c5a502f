"""`POST api/jobs/cancel`, `retry`, `delete` and `update`: change jobs, a bounded batch for each request."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from oban.documents import actions
from oban.documents.actions import CANCEL, DELETE, RETRY, UPDATE, Action
from oban.documents.choice import Choice, decoded
from oban.documents.jobs import Changes
from oban.job_search.terms import Age, Anything, Term
from oban.models import Job
from oban.redaction import META_KEY
from oban.types import STATES
from oban.web.access import Permission
from oban.web.api import cursors, selecting
from oban.web.api.bodies import Body
from oban.web.api.jobs import count_part
from oban.web.api.new_jobs import Time
from oban.web.api.problems import Refusal
from oban.web.api.routing import ApiAction
from oban.web.api.selecting import JobFilter, JobId
from oban.web.errors import Refused
from oban.web.visit import Visit

#: How many ids a request can name, and how many jobs a request changes.
MOST_IDS, BATCH = 500, 500


class ChangeJobs(Body):
    """Which jobs to change: by their ids, by a filter, or both; or all."""

    ids: list[JobId] = Field(default_factory=list, max_length=MOST_IDS, description="The ids of jobs.")
    filter: JobFilter | None = None
    all: bool = Field(default=False, description="Every job, which goes without ids and a filter.")
    dry_run: bool = Field(default=False, description="Change nothing, and count the jobs by state.")
    limit: int = Field(
        default=BATCH, ge=1, le=BATCH, description="How many jobs this request changes at most."
    )
    cursor: str | None = Field(
        default=None, max_length=500, description="`next_cursor` of the batch before this one."
    )


class RetryChanges(Body):
    """Fields that retried jobs get."""

    queue: str | None = None
    priority: int | None = None
    scheduled_at: Time | None = None
    schedule_in: float | None = None


class RetryJobs(ChangeJobs):
    """Which jobs to retry, and the fields that they get."""

    changes: RetryChanges = Field(default_factory=RetryChanges)


class UpdateChanges(RetryChanges):
    """Fields that updated jobs get."""

    worker: str | None = None
    args: dict[str, Any] | None = None
    tags: list[str] | None = None
    max_attempts: int | None = None
    meta: dict[str, Any] | None = None


class UpdateJobs(ChangeJobs):
    """Which jobs to update, and the fields that they get."""

    changes: UpdateChanges = Field(default_factory=UpdateChanges)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Changes):
    """What a request has done to jobs. While there is a cursor, the next request goes on with it."""

    next_cursor: str | None = None


async def _change(action: Action, visit: Visit, body: ChangeJobs) -> Batch:
    choice = _choice(visit, body)
    values = _values(visit, body)
    about = [action.verb, choice.ids, choice.filters, body.dry_run]
    after = None if body.cursor is None else cursors.job_id(cursors.read(about, body.cursor))
    if body.dry_run:
        visit.is_audited = True
        async with visit.read() as session:
            done, following = await _plan(visit, session, action, choice, after)
    else:
        async with visit.write() as session:
            done, following = await _apply(visit, session, action, choice, values, after, body.limit)
        visit.audit(count=done.changed, ids=choice.ids, filter=_described(choice))
    made = {name: getattr(done, name) for name in Changes.__dataclass_fields__}
    return Batch(**made, next_cursor=None if following is None else cursors.make(about, following))


def _described(choice: Choice) -> str | None:
    """The filter for the audit trail, in the language of the search."""
    found: Mapping[str, Any] = choice.filters
    terms = [
        Term(name, tuple(values))
        for name in ("state", "queue", "worker", "priority")
        if (values := found.get(name))
    ]
    terms += [Term("tag", (tag,)) for tag in found.get("tag", ())]
    terms += [Term("node", (node,)) for node in (found.get("node"),) if node]
    for name in ("args", "meta"):
        terms += [Term(name, (Anything(),), _path(text)) for text in found.get(name, ())]
    terms += [
        Term("inserted", (Age(f"{age:.0f}s"),), operator=">") for age in (found.get("older_than"),) if age
    ]
    terms += [
        Term("inserted", (Age(f"{age:.0f}s"),), operator="<") for age in (found.get("newer_than"),) if age
    ]
    return " ".join([*map(str, terms), *filter(None, [found.get("q")])]) or None


def _path(text: str) -> tuple[str, ...]:
    """The keys in a filter of args or meta: PATH=VALUE, PATH, or a JSON object, whose keys are enough."""
    document = decoded(text) if text.lstrip().startswith("{") else None
    return tuple(document) if isinstance(document, dict) else tuple(text.partition("=")[0].split("."))


def _choice(visit: Visit, body: ChangeJobs) -> Choice:
    choice = selecting.choice(visit, body.filter, body.ids, everything=body.all)
    chosen = bool(choice.ids or choice.filters)
    if body.all and chosen:
        raise Refusal.of_field("all", "it means every job: leave it out, or leave out ids and filter")
    if not body.all and not chosen:
        raise Refusal.of_field("filter", "no jobs are chosen: pass ids, a filter, or all for every job")
    return choice


def _values(visit: Visit, body: ChangeJobs) -> dict[str, Any]:
    if not isinstance(body, (RetryJobs, UpdateJobs)):
        return {}
    changes = body.changes.model_dump()
    values = {name: value for name, value in changes.items() if value is not None}
    if isinstance(body, UpdateJobs) and not (values or body.dry_run):
        raise Refusal.of_field("changes", "nothing is to be changed")
    for name in ("args", "meta"):
        # Whoever does not see a field would replace values without knowing them.
        if name in values and not visit.access.shows(name):
            raise Refused(f"{visit.access.user} does not see {name}, and cannot replace it")
    if META_KEY in values.get("meta", ()):
        # Whoever could change it would see the redacted values of the job.
        raise Refusal.of_field(f"changes.meta.{META_KEY}", "Oban sets it itself: leave it out")
    return values


async def _plan(
    visit: Visit, session: AsyncSession, action: Action, choice: Choice, after: int | None
) -> tuple[Changes, int | None]:
    if choice.ids:
        return await actions.plan(visit.oban, action, choice, session), None
    found, following = await count_part(visit, session, choice, after)
    applies = {state.value for state in action.states}
    would_change = {state: found[state] for state in STATES if found[state] and state in applies}
    plan = Changes(
        dry_run=True,
        changed=sum(would_change.values()),
        would_change=would_change,
        would_leave={state: found[state] for state in STATES if found[state] and state not in applies},
    )
    return plan, following


async def _apply(
    visit: Visit,
    session: AsyncSession,
    action: Action,
    choice: Choice,
    values: dict[str, Any],
    after: int | None,
    limit: int,
) -> tuple[Changes, int | None]:
    if choice.ids:
        return await actions.change(visit.oban, action, choice, values, session), None
    ids, following = await _next_ids(session, action, choice, after, limit)
    if not ids:
        return Changes(dry_run=False, changed=0), following
    # The conditions are checked again, on locked rows.
    part = Choice(ids=tuple(ids), conditions=(*choice.conditions, Job.id.in_(ids)))
    return await actions.change(visit.oban, action, part, values, session), following


async def _next_ids(
    session: AsyncSession, action: Action, choice: Choice, after: int | None, limit: int
) -> tuple[Sequence[int], int | None]:
    """Ids of jobs that the action applies to, and the id that the next batch begins after."""
    applies = Job.state.in_(action.states)
    found: list[int] = []
    following = None
    async for window, end in selecting.windows(session, choice, after):
        following = end
        within = [] if window is None else [window]
        statement = select(Job.id).where(applies, *choice.conditions, *within).order_by(Job.id)
        found += (await session.execute(statement.limit(limit + 1 - len(found)))).scalars().all()
        if len(found) > limit:
            return found[:limit], found[limit - 1]
    return found, following


def _route(
    action: Action, body: type[ChangeJobs], permission: Permission, about: str, **example: Any
) -> ApiAction:
    return ApiAction(
        path=f"/api/jobs/{action.verb}",
        handler=functools.partial(_change, action),
        permission=permission,
        summary=f"{action.verb.capitalize()} jobs",
        about=f"{about} Each request is a transaction.",
        body=body,
        answer=Batch,
        example={"filter": {"state": ["retryable"], "queue": ["mail"]}, "dry_run": True, **example},
    )


ROUTES = (
    _route(CANCEL, ChangeJobs, "cancel_jobs", "A job that is executing is asked to stop."),
    _route(RETRY, RetryJobs, "retry_jobs", "Jobs run again.", changes={"schedule_in": 60}),
    _route(DELETE, ChangeJobs, "delete_jobs", "A job that is executing is left alone."),
    _route(UPDATE, UpdateJobs, "update_jobs", "Fields get new values.", changes={"priority": 0}),
)
