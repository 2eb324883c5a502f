"""The documents of a job: its args, meta and recorded value."""

from dataclasses import dataclass
from typing import Any

from oban.documents.jobs import json_able, json_text
from oban.encoding import Undecodable
from oban.models import Job
from oban.web.access import Access
from oban.web.job import stored_values

#: The keys of meta that the page shows in places of their own.
_ELSEWHERE = ("progress", "recorded", "return")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document of a job.

    Attributes:
        name: The name of the field, such as "args".
        title: The heading above it.
        value: The document.
        hidden: Whether the user may not see it.
        problem: Why it cannot be shown, if another program has stored something that is no JSON.
    """

    name: str
    title: str
    value: Any = None
    hidden: bool = False
    problem: str | None = None


def of(job: Job, access: Access) -> list[Document]:
    """The documents of a job, from which `hiding` has removed what the user may not see."""
    meta: Any = job.meta
    if isinstance(meta, dict):
        meta = {key: value for key, value in meta.items() if key not in _ELSEWHERE}
    found = [
        _document("args", "Args", job.args, not access.shows("args")),
        _document("meta", "Meta", meta, not access.shows("meta")),
    ]
    hides_recorded = not (access.shows("recorded") and access.shows("meta"))
    has_recorded, recorded = stored_values.recorded(job)
    if hides_recorded or has_recorded:
        found.append(_document("recorded", "Recorded value", recorded, hides_recorded))
    return found


def value(job: Job, name: str) -> Any:
    """A document of a job by its name."""
    return stored_values.recorded(job)[1] if name == "recorded" else getattr(job, name)


def pretty(document: Any) -> str:
    """A document as indented JSON."""
    return json_text(json_able(document), indent=True)


def _document(name: str, title: str, document: Any, hidden: bool) -> Document:
    if hidden:
        return Document(name=name, title=title, hidden=True)
    if isinstance(document, Undecodable):
        return Document(name=name, title=title, problem=document.problem)
    return Document(name=name, title=title, value=json_able(document))
