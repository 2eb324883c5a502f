"""Makes unique jobs."""

from typing import Any

from oban import Job
from oban.unique import Unique, parse_replace


def unique_job(n: object = 1, rule: object = True, replace: Any = None, **fields: Any) -> Job:
    """A job that is unique by a rule, with `{"n": n}` as its args."""
    job = Job(**{"worker": "tests.Unique", "args": {"n": n}, **fields})
    values = job.__dict__
    values["_unique"] = Unique.parse(rule)
    if replace is not None:
        values["_replace"] = parse_replace(replace)
    return job


def refused_job() -> Job:
    """A unique job that the database refuses."""
    job = unique_job("refused")
    job.__dict__["priority"] = 99
    return job
