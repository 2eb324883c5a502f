"""Makes unique jobs."""

from typing import Any

from oban import Job


def unique_job(n: object = 1, rule: Any = True, replace: Any = None, **fields: Any) -> Job:
    """A job that is unique by a rule, with `{"n": n}` as its args."""
    values: dict[str, Any] = {"worker": "tests.Unique", "args": {"n": n}, **fields}
    return Job(**values, unique=rule, replace=replace)


def refused_job() -> Job:
    """A unique job that the database refuses."""
    job = unique_job("refused")
    job.__dict__["priority"] = 99
    return job
