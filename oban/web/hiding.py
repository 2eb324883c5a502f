"""Jobs as a user of the dashboard may see them: without redacted values and hidden fields."""

from collections.abc import Sequence

from oban import redacted
from oban.models import Attempt, Job
from oban.web.access import Access

#: The keys of `meta` that tell what a job has recorded.
_RECORDED = ("recorded", "return")


def job(found: Job, access: Access, attempts: Sequence[Attempt] = ()) -> Job:
    """Remove from a job that was loaded, and from its attempts, what the user may not see; return the job.

    A field that is hidden is empty, so that a page that forgets to ask `access.shows` shows nothing.
    """
    redacted.job(found, attempts)
    if not access.hidden:
        return found
    # Not through the attributes, which would note changes.
    values = found.__dict__
    if not access.shows("args"):
        values["args"] = {}
    if not access.shows("meta"):
        values["meta"] = {}
    elif not access.shows("recorded") and isinstance(values.get("meta"), dict):
        values["meta"] = {key: value for key, value in values["meta"].items() if key not in _RECORDED}
    if not access.shows("errors"):
        values["errors"] = []
    for attempt in attempts:
        document = attempt.__dict__
        if not access.shows("errors"):
            document["error"] = None
        if not access.shows("log"):
            document["log"] = None
    return found
