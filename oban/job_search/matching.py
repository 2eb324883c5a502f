"""Whether terms apply to a job as it is shown."""

from collections.abc import Iterator, Sequence
from typing import Any

from oban.job_search import documents
from oban.job_search.terms import Anything, Term, id_of

_NOTHING = object()


def applies(term: Term, job: Any) -> bool:
    """Whether a word, or a filter on tags, args or meta, applies to a job."""
    return _positive(term, job) is not term.negated


def _positive(term: Term, job: Any) -> bool:
    tags = [tag for tag in job.tags if isinstance(tag, str)] if isinstance(job.tags, list) else []
    if not term.key:
        text = str(term.values[0]).lower()
        if (number := id_of(text)) is not None and job.id == number:
            return True
        return any(isinstance(each, str) and text in each.lower() for each in (job.worker, job.queue, *tags))
    if term.key == "tag":
        return any(str(value).strip().lower() in tags for value in term.values)
    found = list(_found(getattr(job, term.key), term.path))
    return any(
        bool(found) if isinstance(value, Anything) else any(_same(each, value) for each in found)
        for value in term.values
    )


def _found(document: Any, keys: Sequence[str]) -> Iterator[Any]:
    for path in documents.paths(keys):
        value = document
        for key in path:
            value = _step(value, key)
        if value is not _NOTHING:
            yield value


def _step(value: Any, key: str | int) -> Any:
    if isinstance(value, dict) and isinstance(key, str):
        return value.get(key, _NOTHING)
    if isinstance(value, list) and isinstance(key, int) and key < len(value):
        return value[key]
    return _NOTHING


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal. Booleans are not numbers."""
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)
