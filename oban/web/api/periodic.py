"""`GET api/periodic` and the changes of periodic entries below it."""

import functools
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import Field

from oban import redacted
from oban.documents.jobs import JobDocument, job_document
from oban.documents.operations import DatabaseOperations, PeriodicVerb
from oban.error_texts import log_safe
from oban.periodic import PeriodicInfo
from oban.web import hiding
from oban.web.access import Access
from oban.web.api.bodies import Body, Query
from oban.web.api.problems import Refusal
from oban.web.api.routing import ApiAction, ApiPage
from oban.web.errors import Refused
from oban.web.visit import Visit


class PeriodicQuery(Query):
    """Which entries to list."""

    name: str | None = Field(default=None, description="Only the entry of this name; 404 if there is none.")


class Entry(Body):
    """Which periodic entry a change is about."""

    name: str = Field(description="The name of the entry.")


class EntryFields(Body):
    """Fields of a periodic entry."""

    timezone: str | None = Field(default=None, description="The zone of the expression.")
    catch_up: Annotated[str | int, Field(description="skip, latest, all or a number.")] | None = None
    window: float | None = Field(default=None, description="How many seconds ago a missed time can be.")
    queue: str | None = None
    args: dict[str, Any] | None = None
    priority: int | None = None
    max_attempts: int | None = None
    tags: list[str] | None = None
    meta: dict[str, Any] | None = None


class NewEntry(EntryFields, Entry):
    """A periodic entry to add, or to replace."""

    expression: str = Field(description="A cron expression, such as 0 3 * * *.")
    worker: str = Field(description="The name of the worker of its jobs.")


class EntryChanges(EntryFields):
    """What to change."""

    expression: str | None = None


class UpdateEntry(Entry):
    """Which entry to change, and what."""

    changes: EntryChanges


async def list_(visit: Visit, query: PeriodicQuery) -> list[PeriodicInfo]:
    """`GET /api/periodic`."""
    async with visit.read() as session:
        operations = DatabaseOperations(visit.oban, session)
        if query.name is None:
            found = await operations.list_periodic()
        else:
            found = [await operations.find_periodic(query.name)]
    return [shown(info, visit.access) for info in found]


def shown(info: PeriodicInfo, access: Access) -> PeriodicInfo:
    """An entry without redacted values and hidden fields."""
    info = redacted.periodic(info)
    for name in ("args", "meta"):
        if not access.shows(name):
            override = {key: value for key, value in info.override.items() if key != name}
            values: Any = {name: {}, "override": override}
            info = replace(info, **values)
    return info


async def _add(visit: Visit, body: NewEntry) -> PeriodicInfo:
    options = _values(visit, body)
    del options["name"], options["expression"]
    async with visit.write() as session:
        operations = DatabaseOperations(visit.oban, session)
        info = await operations.add_periodic(body.name, body.expression, options)
    visit.audit("add_periodic", target=body.name, count=1)
    return shown(info, visit.access)


async def _change(verb: PeriodicVerb, visit: Visit, body: Entry) -> PeriodicInfo:
    changes = _values(visit, body.changes) if isinstance(body, UpdateEntry) else None
    if changes == {}:
        raise Refusal.of_field("changes", "nothing is to be changed")
    async with visit.write() as session:
        operations = DatabaseOperations(visit.oban, session)
        info = await operations.change_periodic(verb, body.name, changes)
    visit.audit(f"{verb}_periodic", target=body.name, count=1)
    return shown(info, visit.access)


async def _run(visit: Visit, body: Entry) -> JobDocument:
    async with visit.write() as session:
        job = await DatabaseOperations(visit.oban, session).run_periodic(body.name)
    if job.conflict:
        visit.audit("run_periodic", target=body.name, failed=True)
        state = job.state.value if job.state else "unknown"
        raise Refusal(
            HTTPStatus.CONFLICT,
            f"no job of {log_safe(body.name)} was inserted: it is unique, and job {job.id}, which is {state},"
            " is in the way",
        )
    visit.audit("run_periodic", target=body.name, ids=[job.id], count=1)
    return job_document(hiding.job(job, visit.access))


def _values(visit: Visit, body: Body) -> dict[str, Any]:
    values = {name: value for name, value in body.model_dump().items() if value is not None}
    for name in ("args", "meta"):
        if name in values and not visit.access.shows(name):
            raise Refused(f"{visit.access.user} does not see {name}, and cannot set it")
    return values


def _route(path: str, handler: Any, summary: str, body: type[Body] = Entry, **options: Any) -> ApiAction:
    return ApiAction(
        path=f"/api/periodic{path}",
        handler=handler,
        permission="manage_periodic",
        summary=summary,
        body=body,
        **{"answer": PeriodicInfo, "example": {"name": "nightly"}, **options},
    )


_NEW = {"name": "nightly", "expression": "0 3 * * *", "worker": "app.workers.Report"}
ROUTES = (
    ApiPage(
        path="/api/periodic",
        handler=list_,
        summary="List the periodic entries",
        query=PeriodicQuery,
        answer=list[PeriodicInfo],
    ),
    _route("", _add, "Add a periodic entry", NewEntry, status=HTTPStatus.CREATED, example=_NEW),
    _route("/pause", functools.partial(_change, "pause"), "Let an entry insert no jobs"),
    _route("/resume", functools.partial(_change, "resume"), "Let an entry insert jobs again"),
    _route(
        "/update",
        functools.partial(_change, "update"),
        "Change an entry until it is reset",
        UpdateEntry,
        example={"name": "nightly", "changes": {"expression": "0 4 * * *"}},
    ),
    _route("/reset", functools.partial(_change, "reset"), "Take back all changes of an entry"),
    _route("/delete", functools.partial(_change, "delete"), "Delete an entry that no code declares"),
    _route(
        "/run",
        _run,
        "Insert a job of an entry now",
        answer=JobDocument,
        status=HTTPStatus.CREATED,
    ),
)
