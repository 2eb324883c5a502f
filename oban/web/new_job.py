"""The form for a new job."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from oban import encryption, fields
from oban.errors import InvalidJob, ObanError
from oban.models import Job
from oban.unique import Unique
from oban.web import hiding
from oban.web.job import copies, edited_fields, known, redacted_values, stored_values
from oban.web.job.edited_fields import Shown
from oban.web.job.forms import Form
from oban.web.routing import Action, Page
from oban.web.visit import Visit

#: The fields of the form.
FIELDS = (*edited_fields.FIELDS, "in", "unique", "period")
_LARGEST_ID = 2**63 - 1


async def show(visit: Visit) -> Response:
    """`GET /jobs/new`, with the fields of the job `from`, or with those of the address."""
    visit.require("enqueue_jobs")
    query = visit.request.query_params
    texts = {name: query[name][:10_000] for name in FIELDS if name in query}
    source = await _source(visit, query.get("from", ""))
    shown = Shown() if source is None else _copied(source, visit)
    return await _page(visit, source, shown, {**shown.texts, **texts}, {})


async def create(visit: Visit) -> Response:
    """`POST /jobs/new`."""
    form = Form(await visit.request.form())
    source = await _source(visit, form.raw("from"))
    if form.text("from") and source is None:
        form.problems[""] = "The job whose values are copied does not exist any more."
    original = None if source is None else _names_and_documents(source)
    shown = Shown() if source is None else _copied(source, visit)
    job, error, conflict = None, None, None
    try:
        job = _job(form, shown, original)
        if form.raw("button") == "check" and not form.problems:
            return await _page(visit, source, shown, _entered(form, shown), {}, checked=True)
        if job is not None:
            async with visit.write() as session:
                job = await visit.oban.enqueue(job, session)
    except InvalidJob as caught:
        # The other instance has no values any more that would have to be replaced in the message.
        fresh = await _source(visit, form.raw("from"))
        form.refuse(caught, None if fresh is None else hiding.text(caught.problem, fresh, visit.access))
    # Such as `ConfigError` about a key for encrypted args.
    except ObanError as caught:
        error = caught
    if job is not None and job.conflict:
        conflict = job.id
    if error is not None:
        form.problems[""] = f"{str(error)[:500]}."
    if form.problems or conflict is not None or job is None:
        status = 409 if conflict is not None else 422
        problems = form.problems
        return await _page(
            visit, source, shown, _entered(form, shown), problems, conflict=conflict, status=status
        )
    visit.audit("enqueue_jobs", ids=[job.id], count=1, target=str(job.worker))
    return visit.redirect(f"jobs/{job.id}", f"Job {job.id} is enqueued.")


async def _source(visit: Visit, wanted: str) -> Job | None:
    """The job whose fields are copied, with everything in it."""
    if not wanted.isascii() or not wanted.isdecimal() or not 0 < int(wanted[:20]) <= _LARGEST_ID:
        return None
    async with visit.read() as session:
        return await visit.oban.get_job(int(wanted[:20]), session)


def _names_and_documents(source: Job) -> dict[str, Any]:
    return {"worker": source.worker, "meta": copies.meta(source)}


def _copied(source: Job, visit: Visit) -> Shown:
    """A job as the form shows it, without what is about that job only."""
    meta = stored_values.mapping(source.meta)
    # Not through the attribute, which would note a change.
    source.__dict__["meta"] = {key: value for key, value in meta.items() if key not in copies.OWN_KEYS}
    shown = edited_fields.show(source, visit.access)
    for name in ("state", "at"):
        shown.texts.pop(name, None)
    # Fields that the form cannot show, other than documents, are left to the user.
    shown.reasons = {name: reason for name, reason in shown.reasons.items() if name in ("args", "meta")}
    shown.reasons = {
        name: reason.replace("stays as it is", "is copied") for name, reason in shown.reasons.items()
    }
    return shown


def _job(form: Form, shown: Shown, original: Mapping[str, Any] | None) -> Job | None:
    """The new job that a form means; None if something in it cannot be read."""
    worker = form.text("worker")
    options = _options(form, shown, original)
    if worker is None:
        form.problems["worker"] = "must not be empty"
    args = options.pop("args", None)
    if original is not None and encryption.is_sealed(args) and worker != original["worker"]:
        form.problems["worker"] = "must stay as it is, because the args that are copied are encrypted"
    if form.problems or worker is None:
        return None
    if (cls := known.worker_class(worker)) is not None:
        job: Job = cls.new(args, **options)
        return job
    return Job(worker=worker, args={} if args is None else args, **options)


def _options(form: Form, shown: Shown, original: Mapping[str, Any] | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "args": form.json_object("args"),
        "queue": form.text("queue"),
        "priority": form.integer("priority"),
        "max_attempts": form.integer("max_attempts"),
        "tags": form.tags("tags") or None,
        "meta": form.json_object("meta") or None,
        "scheduled_at": form.time("at"),
        "schedule_in": form.duration("in"),
        "unique": _unique(form),
    }
    found = {name: value for name, value in found.items() if value is not None}
    edited_fields.check_each(form, found)
    if original is None or form.problems:
        return found
    if "args" in shown.reasons:
        found["args"] = shown.stored_args
    else:
        found["args"] = redacted_values.restored("args", found.get("args", {}), shown.args, shown.stored_args)
    if "meta" in shown.reasons:
        found["meta"] = original["meta"]
    else:
        stored = {k: v for k, v in original["meta"].items() if k not in edited_fields.OWN_META}
        found["meta"] = redacted_values.restored("meta", found.get("meta", {}), shown.meta, stored)
    found["meta"] = copies.marked(found["meta"], shown.names)
    return found


def _unique(form: Form) -> Any:
    """The option `unique`: None for that of the worker."""
    match form.raw("unique"):
        case "yes":
            period = form.duration("period")
            return Unique() if period is None else fields.SETTABLE["unique"]({"period": period})
        case "no":
            return False
    return None


def _entered(form: Form, shown: Shown) -> dict[str, str]:
    return {name: form.raw(name) for name in FIELDS if name not in shown.reasons}


async def _page(
    visit: Visit,
    source: Job | None,
    shown: Shown,
    texts: Mapping[str, str],
    problems: Mapping[str, str],
    *,
    status: int = 200,
    conflict: int | None = None,
    checked: bool = False,
) -> Response:
    async with visit.read() as session:
        found = await known.find(visit.oban, session)
    worker = texts.get("worker", "").strip()
    cls = known.worker_class(worker)
    queue = texts.get("queue", "").strip() or (
        "default" if cls is None else cls._defaults.get("queue", "default")
    )
    return visit.render(
        "new_job.html",
        status,
        source=source,
        shown=shown,
        texts=texts,
        problems=problems,
        conflict=conflict,
        checked=checked,
        known=found,
        warnings=found.warnings(worker, queue) if worker else [],
        args_type=known.args_type(worker),
    )


ROUTES = (Page("/jobs/new", show), Action("/jobs/new", create, "enqueue_jobs"))
