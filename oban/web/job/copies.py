"""New jobs with what another job has. Whoever makes one does not have to see what is copied."""

from typing import Any

from oban import encoding, redaction
from oban.models import Job
from oban.unique import Unique
from oban.web.job import stored_values

#: The keys of meta about one job: what has happened to it, its trace, and the entry that has inserted it.
OWN_KEYS = frozenset(
    {
        *("progress", "recorded", "return", "snoozed", "rescued"),
        *("traceparent", "tracestate", "baggage"),
        *("cron", "cron_name", "cron_expr", "cron_tz", "cron_tick"),
    }
)


def again(job: Job) -> Job:
    """A new job, due now, with the fields of a job that was loaded with everything in it.

    It is unique by the same rule, and replaces nothing. Raises `InvalidJob` for values that no new job can
    have.
    """
    rule = Unique.from_rule(job.unique_rule) if isinstance(job.unique_key, str) else None
    copied: Any = {
        name: encoding.copied(getattr(job, name))
        for name in ("worker", "args", "queue", "priority", "max_attempts", "tags")
    }
    return Job(**copied, meta=meta(job), unique=rule or False, replace={})


def meta(job: Job) -> dict[str, Any]:
    """The meta of a new job like another one, which names what is redacted in that."""
    kept = {key: value for key, value in stored_values.mapping(job.meta).items() if key not in OWN_KEYS}
    copied: dict[str, Any] = encoding.copied(kept)
    return marked(copied, redaction.names_of(job))


def marked(document: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """Meta that names what is redacted in a job, also where only the class of its worker says so."""
    return {**document, redaction.META_KEY: sorted(names)} if names else document
