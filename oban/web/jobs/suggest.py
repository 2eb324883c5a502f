"""`GET /jobs/suggest`: what can come next in a search."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import select
from starlette.responses import JSONResponse, Response

from oban.job_search.terms import KEYS, STATES, TIMES, Term
from oban.models import Job
from oban.web.jobs import shown_jobs
from oban.web.jobs.orders import ORDERS
from oban.web.visit import Visit

#: How many suggestions there are, of how many characters, and from how many of the newest jobs they come.
MOST, LONGEST, SAMPLE = 12, 80, 100

_NOTES = {
    "state": "such as executing",
    "queue": "name, * for any characters",
    "worker": "name, * for any characters",
    "tag": "one of its tags",
    "node": "where it ran last",
    "args": "a value in its args",
    "meta": "a value in its meta",
    **dict.fromkeys(TIMES, "<1h, >2026-01-30"),
}


class Suggestion(NamedTuple):
    """A value for the search field: what it begins with, completed."""

    text: str
    label: str
    note: str


async def show(visit: Visit) -> Response:
    """`GET /jobs/suggest?q=…`: JSON with the suggestions for a text, which ends where the user types."""
    text = visit.request.query_params.get("q", "")[:500]
    begin = re.search(r'(?:"(?:[^"\\]|\\.)*"?|[^\s"])*\Z', text)
    word = begin[0] if begin else ""
    before = text[: len(text) - len(word)]
    sign = "-" if word.startswith("-") else ""
    found = [
        Suggestion(f"{before}{sign}{written}", shown[:LONGEST], note)
        async for written, shown, note in _candidates(visit, word.removeprefix("-"))
    ]
    return JSONResponse({"suggestions": [each._asdict() for each in found[:MOST]]})


async def _candidates(visit: Visit, word: str) -> Any:
    key, colon, value = word.partition(":")
    name, dot, _ = key.partition(".")
    if not colon and not dot:
        for each in KEYS:
            if each.startswith(word.lower()) and visit.access.shows(each):
                end = "." if each in ("args", "meta") else ":"
                yield f"{each}{end}", f"{each}{end}", _NOTES.get(each, "")
        return
    if not visit.access.shows(name):
        return
    if name in ("args", "meta"):
        jobs = await _sample(visit)
        documents = [getattr(job.job, name) for job in jobs if not job.is_large]
        if colon:
            return
        for path in _matching(
            (".".join(path) for each in documents for path in _paths(each)), key[len(name) + 1 :]
        ):
            yield f"{name}.{path}:", f"{name}.{path}", ""
        return
    *chosen, value = value.split(",")
    start = f"{key}:{''.join(f'{each},' for each in chosen)}"
    for each in _matching(await _values(visit, name), value.strip('"')):
        written = str(Term(key, (each,))).partition(":")[2]
        yield f"{start}{written}", each, ""


async def _values(visit: Visit, key: str) -> Iterable[str]:
    if key == "state":
        return STATES
    if key in ("queue", "node"):
        stats = (await visit.instance.live.sample()).stats
        names = (
            [each.queue for each in stats.queues] if key == "queue" else [each.node for each in stats.nodes]
        )
        return [str(each) for each in names]
    if key == "worker":
        return [job.worker for job in await _sample(visit)]
    if key == "tag":
        return [tag for job in await _sample(visit) for tag in job.tags]
    return ()


async def _sample(visit: Visit) -> list[shown_jobs.Shown]:
    """The newest jobs, as the user may see them."""
    statement = select(Job).order_by(Job.id.desc()).limit(SAMPLE)
    async with visit.read() as session:
        return await shown_jobs.load(visit, session, statement, ORDERS["newest"])


def _matching(values: Iterable[str], typed: str) -> Iterator[str]:
    """The distinct values that contain what was typed; those that begin with it come first."""
    part = typed.lower()
    known = [
        each for each in dict.fromkeys(values) if part in each.lower() and each.strip() and len(each) <= 255
    ]
    yield from sorted(known, key=lambda each: (not each.lower().startswith(part), each))[:MOST]


def _paths(document: Any, depth: int = 0) -> Iterator[tuple[str, ...]]:
    """The paths of a document, of which a query can have each without quotes."""
    for key, value in list(document.items())[:50] if isinstance(document, dict) and depth < 4 else ():
        if not re.fullmatch(r'[^\s".:,]{1,60}', key):
            continue
        if isinstance(value, dict) and value:
            yield from ((key, *rest) for rest in _paths(value, depth + 1))
        else:
            yield (key,)
