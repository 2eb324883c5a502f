"""Addresses of lists of jobs, for the pages about what the jobs belong to."""

from oban.job_search import language
from oban.job_search.terms import Term
from oban.web.visit import Visit


def jobs(visit: Visit, **conditions: str | None) -> str:
    """The address of the list of jobs that meet conditions, such as `queue="mail", state="available"`."""
    terms = [Term(key, (value,)) for key, value in conditions.items() if value is not None]
    return visit.link("jobs", q=language.written(terms))
