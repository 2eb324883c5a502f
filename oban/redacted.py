"""Jobs, attempts and periodic entries as commands and pages show them: without the redacted values."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from oban import redaction
from oban.models import Attempt, Job
from oban.periodic import PeriodicInfo

J = TypeVar("J", bound="Job | None")


def job(found: J, attempts: Sequence[Attempt] = ()) -> J:
    """Replace the redacted values in a loaded job and in its attempts; return the job."""
    if found is None or not redaction.hides(found):
        return found
    values = found.__dict__
    shown: dict[str, Any] = {
        name: redaction.value(found, values[name]) for name in ("errors", "tags") if name in values
    }
    for attempt in attempts:
        document = attempt.__dict__
        document.update(
            {name: redaction.value(found, document.get(name)) for name in ("error", "log", "progress")}
        )
    shown.update(args=redaction.args(found), meta=redaction.meta(found))
    # Not through the attributes, which would check the values and note changes.
    values.update(shown)
    return found


def periodic(info: PeriodicInfo) -> PeriodicInfo:
    """A periodic entry without the redacted values of its jobs."""
    if not redaction.hides(info):
        return info
    shown = {"args": redaction.args(info), "meta": redaction.meta(info)}
    override = {
        # An overridden value is the current value of the entry.
        name: shown[name] if name in shown else redaction.value(info, value)
        for name, value in info.override.items()
    }
    return replace(info, args=shown["args"], meta=shown["meta"], override=override)
