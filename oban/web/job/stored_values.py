"""Values of rows that any program can have written, as pages show them."""

from datetime import datetime
from typing import Any

from oban.documents.jobs import json_able, text, texts
from oban.models import Job
from oban.type_expressions import FIRST_TIME

__all__ = ["integer", "json_able", "mapping", "recorded", "text", "texts", "time"]


def mapping(value: object) -> dict[str, Any]:
    """A stored document as a dict: empty if it is anything else."""
    return value if isinstance(value, dict) else {}


def integer(value: object) -> int | None:
    """A stored number; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def time(value: object) -> datetime | None:
    """A stored time; None for one that is none, which is read as the first of all times."""
    return value if isinstance(value, datetime) and value != FIRST_TIME else None


def recorded(job: Job) -> tuple[bool, Any]:
    """Whether a job has recorded a value, and the value."""
    meta = mapping(job.meta)
    return bool(meta.get("recorded")), meta.get("return")
