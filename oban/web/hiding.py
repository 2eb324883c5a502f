"""Jobs as a user of the dashboard may see them: without redacted values and hidden fields."""

from collections.abc import Sequence
from dataclasses import replace

from oban import redacted, redaction
from oban.diagnosis.explanation import Explanation
from oban.error_texts import last_error, log_safe
from oban.job_search.query import RECORDED
from oban.models import Attempt, Job
from oban.web.access import Access

#: Takes the place of a hidden text within another one.
HIDDEN = "[hidden]"


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
        values["meta"] = {key: value for key, value in values["meta"].items() if key not in RECORDED}
    if not access.shows("errors"):
        values["errors"] = []
    for attempt in attempts:
        document = attempt.__dict__
        if not access.shows("errors"):
            document["error"] = None
        if not access.shows("log"):
            document["log"] = None
        if not access.shows("meta"):
            document["progress"] = None
    return found


def unique_key(found: Job, access: Access) -> str | None:
    """The unique key of a job that was loaded, for those who see all that it is a hash of.

    Others could find the values out by computing the keys of those that are likely.
    """
    sees_all = access.shows("args") and access.shows("meta") and not redaction.hides(found)
    return found.unique_key if sees_all and isinstance(found.unique_key, str) else None


def explanation(why: Explanation, found: Job, access: Access) -> Explanation:
    """Remove from the explanation of a job what it repeats of the fields that the user may not see.

    Args:
        why: What `Oban.why` has returned.
        found: The job as it was loaded, before `job` has removed anything from it.
        access: Whose request it is.
    """
    hidden = []
    if not access.shows("errors"):
        hidden.append(last_error(redaction.value(found, found.errors)))
    if not access.shows("meta") and isinstance(found.meta, dict) and found.last_progress is not None:
        hidden.append(log_safe(str(found.last_progress), 300))
    for text in filter(None, hidden):
        reasons = (
            replace(each, text=each.text.replace(text, HIDDEN), advice=each.advice.replace(text, HIDDEN))
            for each in why.reasons
        )
        why = replace(why, reasons=tuple(reasons))
    return why


def text(message: str, found: Job, access: Access) -> str:
    """A message about a job that was loaded, without redacted values; another one if fields are hidden."""
    if access.shows("args") and access.shows("meta"):
        return redaction.text(found, message)
    return "one of its values, which are hidden from you, is refused"
