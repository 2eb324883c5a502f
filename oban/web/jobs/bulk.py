"""Bulk actions: a preview, a confirmation, batches that each take one short request, and the result."""

import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from oban.types import STATES
from oban.web.errors import NotFound, WebError
from oban.web.jobs import bulk_actions, bulk_changes, selection, words
from oban.web.jobs.bulk_actions import ACTIONS, BulkAction
from oban.web.jobs.bulk_changes import Changes
from oban.web.jobs.selection import Selection
from oban.web.routing import Action, Page
from oban.web.visit import Visit

#: With more jobs, the user types the name of the action. To delete, always.
MANY = 1_000
#: Seconds after which a request begins no further batch.
BUDGET = 0.1
_NOT_FOR_STATE = ("the action is not for this state",) * 2


async def preview(visit: Visit) -> Response:
    """`GET /jobs/bulk`: what an action would do to the selected jobs."""
    given = visit.request.query_params
    action = ACTIONS.get(given.get("action", ""))
    if action is None:
        raise NotFound("There is no such action.")
    visit.require(action.permission)
    chosen = selection.parse(visit, given)
    changes = bulk_changes.parse(given, visit.access)
    known = selection.counted(given.get("counted"))
    walk = await selection.begin_walk(visit, chosen)
    async with visit.read() as session:
        chosen = await selection.begun(visit, chosen, session)
        walk.selection = selection.counted_from(chosen, given.get("from"))
        found, rest = await selection.count(walk, session)
        counts = known + found
        first = replace(walk, selection=chosen, started=time.monotonic())
        shown = await selection.examples(first, action.states, session)
    applies = {state.value for state in action.states}
    total = sum(counts.values())
    will = {state: counts[state] for state in STATES if counts[state] and state in applies}
    will_not = [
        (state, counts[state], action.why.get(state, _NOT_FOR_STATE))
        for state in (*STATES, "unknown", "none")
        if counts[state] and state not in applies
    ]
    number = sum(will.values())
    onward = None
    if rest is not None:
        onward = visit.link("jobs/bulk", **{**_parameters(action, chosen, changes), "from": rest.below,
                                            "counted": selection.numbers(counts)})  # fmt: skip
    return visit.render(
        "jobs_bulk.html",
        action=action,
        chosen=chosen,
        changes=changes,
        words=words.of(chosen.query) if chosen.is_whole else [],
        will=will,
        will_not=will_not,
        number=number,
        missing=0 if chosen.is_whole else len(chosen.ids) - total,
        examples=[(job, _after(job, changes)) for job in shown],
        onward=onward,
        counted_to=None if rest is None else rest.below,
        must_type=action.name == "delete" or number > MANY,
        needs_changes=action.name == "update" and not changes,
        fields=_fields(action, chosen, changes, number),
        form_fields=_fields(action, chosen, Changes({}, {}), 0),
        back=visit.link("jobs", q=str(chosen.query) or None),
    )


def run(action: BulkAction) -> Callable[[Visit], Coroutine[Any, Any, Response]]:
    """`POST /jobs/bulk/ACTION`: change the selected jobs, as far as the time allows."""

    async def handler(visit: Visit) -> Response:
        form = await visit.request.form()
        chosen = selection.parse(visit, form)
        changes = bulk_changes.parse(form, visit.access)
        if action.name == "update" and not changes:
            raise WebError("Nothing is to be changed: fill in a field.")
        if chosen.is_whole and (chosen.at is None or not form.get("below")):
            raise WebError("Look at the preview first: it says which jobs are meant.")
        expected = _number(form.get("number"))
        if (action.name == "delete" or expected > MANY) and form.get("confirm") != action.name:
            raise WebError(f"Nothing was changed: type {action.name} to confirm it.")
        done, rest = await _change(visit, action, chosen, changes)
        changed = sum(number for name, number in done.items() if name not in ("conflict", "missed"))
        visit.audit(
            action.permission,
            count=changed,
            ids=chosen.ids,
            filter=str(chosen.query) or "every job" if chosen.is_whole else None,
        )
        total = selection.counted(form.get("done")) + done
        return _progress(visit, action, changes, chosen, rest, total, expected)

    return handler


async def _change(
    visit: Visit, action: BulkAction, chosen: Selection, changes: Changes
) -> tuple[Counter[str], Selection | None]:
    """Change jobs; returns how many by the state that they were in, and the rest of the selection, if any."""
    done: Counter[str] = Counter()
    if not chosen.is_whole:
        for begin in range(0, len(chosen.ids), action.batch):
            ids = chosen.ids[begin : begin + action.batch]
            async with visit.read() as session:
                by_state = await selection.of_ids(visit, ids, action.states, session)
            await _change_each(visit, action, chosen, changes, by_state, done)
        return done, None
    walk = await selection.begin_walk(visit, chosen)
    started = time.monotonic()
    while True:
        async with visit.read() as session:
            by_state_or_none = await selection.batch(walk, action.states, action.batch, session)
        if by_state_or_none is None:
            return done, None
        await _change_each(visit, action, chosen, changes, by_state_or_none, done)
        if time.monotonic() - started > BUDGET:
            return done, walk.selection


async def _change_each(
    visit: Visit,
    action: BulkAction,
    chosen: Selection,
    changes: Changes,
    by_state: dict[str, list[int]],
    done: Counter[str],
) -> None:
    for state, ids in by_state.items():
        # The condition is judged again once the rows are locked: others may have changed the jobs meanwhile.
        condition = selection.in_state(chosen, state)
        async with visit.write() as session:
            outcome = await bulk_actions.apply(visit.oban, action, ids, condition, changes, session)
        done[state] += outcome.changed
        done["conflict"] += outcome.conflicts
        done["missed"] += len(ids) - outcome.changed - outcome.conflicts


def _progress(
    visit: Visit,
    action: BulkAction,
    changes: Changes,
    chosen: Selection,
    rest: Selection | None,
    done: Counter[str],
    expected: int,
) -> Response:
    changed = {state: done[state] for state in STATES if done[state]}
    fields = stop = None
    if rest is not None:
        fields = _fields(action, rest, changes, expected)
        fields += [("done", selection.numbers(done)), ("confirm", action.name)]
        stop = visit.link("jobs/bulk", **_parameters(action, rest, changes))
    return visit.render(
        "jobs_bulk_result.html",
        action=action,
        changed=changed,
        total=sum(changed.values()),
        conflicts=done["conflict"],
        missed=done["missed"],
        expected=expected,
        fields=fields,
        stop=stop,
        back=visit.link("jobs", q=str(chosen.query) or None),
    )


def _after(job: Any, changes: Changes) -> list[tuple[str, str, str]]:
    """The fields of an example that change: their names, and their values before and after."""
    if not changes or job.is_large:
        return []
    found = []
    for name, value in changes.of(job.job).items():
        if name == "meta":
            key, new = changes.meta or ("", None)
            found.append((f"meta {key}", str(job.job.meta.get(key, "–")), str(new)))
        elif name == "schedule_in":
            found.append(("scheduled at", str(job.job.scheduled_at), "now"))
        else:
            found.append((name.replace("_", " "), str(getattr(job.job, name)), str(value)))
    return found


def _parameters(action: BulkAction, chosen: Selection, changes: Changes) -> dict[str, Any]:
    return {"action": action.name, **chosen.parameters(), **changes.texts}


def _fields(action: BulkAction, chosen: Selection, changes: Changes, number: int) -> list[tuple[str, Any]]:
    """The hidden fields of a form."""
    found: list[tuple[str, Any]] = []
    for name, value in {**_parameters(action, chosen, changes), "number": number}.items():
        found += [
            (name, each) for each in (value if isinstance(value, list) else [value]) if each is not None
        ]
    return found


def _number(text: Any) -> int:
    return int(text) if str(text or "").isdecimal() and len(str(text)) < 13 else 0


ROUTES: tuple[Page | Action, ...] = (
    Page("/jobs/bulk", preview),
    *(Action(f"/jobs/bulk/{each.name}", run(each), each.permission) for each in ACTIONS.values()),
)
