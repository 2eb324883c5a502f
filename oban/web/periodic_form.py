"""The form that changes a periodic entry, or adds one: it shows the next times before it saves."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import FormData
from starlette.responses import Response

from oban import redacted
from oban.errors import ConfigError, InvalidJob, PeriodicInCode, PeriodicNotFound
from oban.models import Job
from oban.periodic import Periodic, PeriodicInfo, check_timing
from oban.web import cron_words
from oban.web.errors import NotFound
from oban.web.periodic_actions import shown
from oban.web.routing import Action, Page
from oban.web.visit import Visit

TIMING = ("expression", "timezone", "catch_up", "window")
JOB = ("queue", "priority", "max_attempts", "tags", "args", "meta")
FIELDS = (*TIMING, *JOB)
_NEW = {"timezone": "UTC", "catch_up": "latest", "window": "3600", "queue": "default", "priority": "0"}


async def edit(visit: Visit) -> Response:
    """`GET /periodic/edit?name=…`."""
    visit.require("manage_periodic")
    info = await _find(visit, visit.request.query_params.get("name", ""))
    texts = _texts(visit, info)
    return _form(visit, info, texts, {}, 200)


async def new(visit: Visit) -> Response:
    """`GET /periodic/new`."""
    visit.require("manage_periodic")
    return _form(visit, None, dict(_NEW), {}, 200)


async def save(visit: Visit) -> Response:
    """`POST /periodic/edit`. Fields that are as they were shown are not changed."""
    form = await visit.request.form()
    info = await _find(visit, _text(form, "name"))
    before, texts = _texts(visit, info), _submitted(form)
    changes, problems = _values(
        {key: texts[key] for key in before if texts.get(key, before[key]) != before[key]}
    )
    texts = {**before, **texts}
    if problems or "preview" in form:
        return _form(visit, info, texts, problems, 422 if problems else 200)
    if not changes:
        return visit.redirect(
            "periodic/one", "Nothing was changed: all values are as before.", name=info.name
        )
    try:
        async with visit.write() as session:
            await visit.oban.update_periodic(info.name, session, **changes)
    except (ConfigError, InvalidJob, PeriodicNotFound) as error:
        return _form(visit, info, texts, _problem(error), 422)
    visit.audit("update_periodic", target=info.name)
    return visit.redirect("periodic/one", f"{shown(info.name)} was changed.", name=info.name)


async def add(visit: Visit) -> Response:
    """`POST /periodic/new`."""
    form = await visit.request.form()
    texts = {**_submitted(form), "name": _text(form, "name"), "worker": _text(form, "worker")}
    values, problems = _values({key: texts[key] for key in FIELDS if texts.get(key)})
    if problems or "preview" in form:
        return _form(visit, None, texts, problems, 422 if problems else 200)
    timing = {key: values.pop(key) for key in TIMING if key in values}
    try:
        entry = Periodic(
            texts["name"], timing.pop("expression", ""), Job(worker=texts["worker"], **values), **timing
        )
        async with visit.write() as session:
            if any(info.name == entry.name for info in await visit.oban.list_periodic(session)):
                raise ConfigError(f"there is an entry of the name {shown(entry.name)}")
            info = await visit.oban.add_periodic(entry, session)
    except (ConfigError, InvalidJob, PeriodicInCode) as error:
        return _form(visit, None, texts, _problem(error), 422)
    visit.audit("add_periodic", target=info.name)
    return visit.redirect("periodic/one", f"{shown(info.name)} was added.", name=info.name)


async def _find(visit: Visit, name: str) -> PeriodicInfo:
    async with visit.read() as session:
        found = next((info for info in await visit.oban.list_periodic(session) if info.name == name), None)
    if found is None:
        raise NotFound(f"There is no periodic entry {name[:128]!r}.")
    return found


def _texts(visit: Visit, info: PeriodicInfo) -> dict[str, str]:
    """The fields that the user can change, as texts: not those that are hidden or have redacted values."""
    seen = redacted.periodic(info)
    texts = {
        "expression": info.expression,
        "timezone": info.timezone,
        "catch_up": str(info.catch_up),
        "window": f"{info.window:g}",
        "queue": info.queue,
        "priority": str(info.priority),
        "max_attempts": "" if info.max_attempts is None else str(info.max_attempts),
        "tags": ", ".join(info.tags),
    }
    for key in ("args", "meta"):
        if visit.access.shows(key) and getattr(seen, key) == getattr(info, key):
            texts[key] = json.dumps(getattr(info, key), ensure_ascii=False, indent=2)
    return texts


def _submitted(form: FormData) -> dict[str, str]:
    # Browsers send line ends in the way of the network.
    return {key: _text(form, key).replace("\r\n", "\n") for key in FIELDS if key in form}


def _text(form: FormData, name: str) -> str:
    value = form.get(name)
    return value if isinstance(value, str) else ""


def _values(texts: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values that texts stand for, and the problems of those that stand for none, by field."""
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for key, text in texts.items():
        try:
            values[key] = _value(key, text.strip())
            if key in TIMING:
                check_timing({key: values[key]})
        except (ValueError, RecursionError, ConfigError) as error:
            problems[key] = str(error)
    return values, problems


def _value(key: str, text: str) -> Any:
    if key == "tags":
        return [tag.strip() for tag in text.split(",") if tag.strip()]
    if key in ("args", "meta"):
        try:
            value = json.loads(text or "{}")
        except ValueError as error:
            raise ValueError(f"it is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise ValueError('it must be a JSON object, such as {"id": 7}')
        return value
    if key == "catch_up":
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
    if key in ("priority", "max_attempts"):
        if not (text.isascii() and text.lstrip("-").isdigit() and len(text) < 10):
            raise ValueError(f"it must be a number, not {text[:40]!r}")
        return int(text)
    if key == "window":
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"it must be a number of seconds, not {text[:40]!r}") from None
    return text


def _problem(error: Exception) -> dict[str, str]:
    """The message of the library at the field that it is about, else above the form."""
    field = getattr(error, "field", "") or ""
    name = str(field).partition("[")[0].partition(".")[0]
    return {name if name in FIELDS else "form": str(error)}


def _form(
    visit: Visit, info: PeriodicInfo | None, texts: Mapping[str, str], problems: dict[str, str], status: int
) -> Response:
    expression, timezone = texts.get("expression", ""), texts.get("timezone", "UTC")
    try:
        upcoming = cron_words.next_times(expression, timezone, datetime.now(UTC)) if expression else []
    except ConfigError:
        upcoming = []
    return visit.render(
        "periodic_form.html",
        status,
        info=info,
        texts=texts,
        problems=problems,
        upcoming=upcoming,
        words=cron_words.words(expression) if expression else None,
        kept=[key for key in ("args", "meta") if info is not None and key not in texts],
    )


ROUTES = (
    Page("/periodic/edit", edit),
    Page("/periodic/new", new),
    Action("/periodic/edit", save, "manage_periodic"),
    Action("/periodic/new", add, "manage_periodic"),
)
