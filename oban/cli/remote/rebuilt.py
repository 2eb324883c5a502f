"""Jobs and attempts, made again from their documents."""

from dataclasses import fields
from typing import Any

from oban.documents.jobs import AttemptDocument, JobDetails, JobDocument
from oban.models import Attempt, Job
from oban.types import STATES, JobState

_FIELDS = [each.name for each in fields(JobDocument)]
_OF_ATTEMPT = [each.name for each in fields(AttemptDocument)]


def job(document: JobDocument) -> Job:
    """A job that belongs to no session, as commands show it."""
    values: dict[str, Any] = {name: getattr(document, name) for name in _FIELDS}
    state = values["state"]
    values["state"] = JobState(state) if state in STATES else None
    made = Job.__new__(Job)
    # As pickle does. The fields are not checked: other programs can have stored anything.
    made.__setstate__(values)
    return made


def attempts(document: JobDetails) -> list[Attempt]:
    """The attempts of a job."""
    found = []
    for each in document.attempts:
        values = {name: getattr(each, name) for name in _OF_ATTEMPT}
        found.append(Attempt(job_id=document.id, **values))
    return found
