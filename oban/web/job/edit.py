"""The form that edits a job."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import IntegrityError
from starlette.responses import Response

from oban.errors import InvalidJob, JobNotFound, UniqueConflict
from oban.models import Job
from oban.web import hiding
from oban.web.job import documents, edited_fields, loading
from oban.web.job.edited_fields import RowChanged, Shown
from oban.web.job.forms import Form
from oban.web.routing import Action, Page
from oban.web.visit import Visit


async def show(visit: Visit) -> Response:
    """`GET /jobs/{id}/edit`."""
    visit.require("update_jobs")
    async with visit.read() as session:
        job = await loading.row(visit, session)
    shown = edited_fields.show(job, visit.access)
    return _page(visit, job, shown, shown.texts, {})


async def save(visit: Visit) -> Response:
    """`POST /jobs/{id}/edit`: saves the form, or shows what it would change if its button says `review`."""
    job_id: int = visit.request.path_params["id"]
    data = await visit.request.form()
    form = Form(data)
    seen = {name: form.raw(f"seen_{name}") for name in ("state", *edited_fields.FIELDS)}
    names = edited_fields.changed(form, seen)
    sent = edited_fields.parse(form, names)
    if not sent and not form.problems:
        return visit.redirect(f"jobs/{job_id}", "Nothing was changed.")
    try:
        if form.problems:
            return await _again(visit, form, names)
        if form.raw("button") == "review":
            return await _review(visit, form, seen, names, sent)

        def change(current: Job) -> Any:
            shown = edited_fields.show(current, visit.access)
            edited_fields.check(shown, seen, names)
            return edited_fields.changes(shown, sent)

        async with visit.write() as session:
            await visit.oban.update_job(job_id, change, session)
    except RowChanged as error:
        return await _again(visit, form, names, changed=error.names, status=409)
    except InvalidJob as error:
        return await _again(visit, form, names, error=error)
    except IntegrityError:
        # A check of the table, which only a row that another program has written can fail.
        form.problems[""] = (
            "The database refuses the row: another program has stored values that Oban does not."
        )
        return await _again(visit, form, names)
    except UniqueConflict as error:
        return await _again(visit, form, names, conflict=error.job_id, status=409)
    except JobNotFound:
        return visit.redirect("jobs", f"There is no job {job_id} any more.", failed=True)
    visit.audit("update_jobs", ids=[job_id], count=1, target=", ".join(sent))
    return visit.redirect(f"jobs/{job_id}", f"Saved: {', '.join(sent)}.")


async def _again(
    visit: Visit,
    form: Form,
    names: list[str],
    *,
    error: InvalidJob | None = None,
    status: int = 422,
    **context: Any,
) -> Response:
    """The form with what the user has entered, and what is wrong with it."""
    async with visit.read() as session:
        job = await loading.row(visit, session)
    if error is not None:
        form.refuse(error, hiding.text(error.problem, job, visit.access))
    shown = edited_fields.show(job, visit.access)
    return _page(visit, job, shown, _entered(shown, form, names), form.problems, status=status, **context)


async def _review(
    visit: Visit, form: Form, seen: Mapping[str, str], names: list[str], sent: Mapping[str, Any]
) -> Response:
    async with visit.read() as session:
        job = await loading.row(visit, session)
    shown = edited_fields.show(job, visit.access)
    edited_fields.check(shown, seen, names)
    edited_fields.check_values(edited_fields.changes(shown, sent))
    after = {name: _normal(form, name, sent) for name in names}
    review = [(name, edited_fields.difference(shown.texts[name], after[name])) for name in names]
    if "schedule_in" in sent:
        review.append(("in", [("added", f"+in {form.raw('in')}")]))
    return _page(visit, job, shown, _entered(shown, form, names), {}, review=review)


def _normal(form: Form, name: str, sent: Mapping[str, Any]) -> str:
    """The text of a field, formatted as the form shows it, so that only other values are a difference."""
    return documents.pretty(sent[name]) if name in ("args", "meta") else form.raw(name)


def _entered(shown: Shown, form: Form, names: list[str]) -> dict[str, str]:
    """What the form is filled with: what the user has changed, and the current values of the rest."""
    return {**shown.texts, **{name: form.raw(name) for name in names}, "in": form.raw("in")}


def _page(
    visit: Visit,
    job: Job,
    shown: Shown,
    texts: Mapping[str, str],
    problems: Mapping[str, str],
    *,
    status: int = 200,
    **context: Any,
) -> Response:
    context = {"changed": (), "conflict": None, "review": None, **context}
    return visit.render(
        "job_edit.html", status, job=job, shown=shown, texts=texts, problems=problems, **context
    )


ROUTES = (Page("/jobs/{id:int}/edit", show), Action("/jobs/{id:int}/edit", save, "update_jobs"))
