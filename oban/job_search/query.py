"""`Query`: a search for jobs, as a text, as a statement, and as a check of jobs that are shown.

    found = query.parse("state:available queue:mail args.customer.id:7")
    jobs = await oban.list_jobs(found.statement(), session, limit=100)

A statement compares values as they are stored, and a user may only search what the user sees. Whoever shows
the result to users has to leave out each job for which `found.matches(job)` is false, where the job is shown
without redacted values; `widened()` then also finds the jobs that negated terms would leave out because of
such a value. Before that, `found.refuse_hidden(hidden)` refuses filters on fields that are hidden altogether.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

from sqlalchemy import Select, and_, or_, select

from oban import display, encryption, filters
from oban.errors import InvalidArgument
from oban.filters import Condition
from oban.job_search import conditions, language, matching
from oban.job_search.terms import Term
from oban.models import Job
from oban.registry import registry

#: The keys of meta that tell what a job has recorded.
RECORDED = ("recorded", "return")
#: Filters on what a redacted value can be in, or be a part of.
_SEES_VALUES = ("", "tag", "args", "meta")


@dataclass(frozen=True, slots=True)
class Query:
    """A search for jobs.

    Attributes:
        terms: What applies to each job that is found.
    """

    terms: tuple[Term, ...] = ()

    def __str__(self) -> str:
        """The query as text, which `parse` reads as the same query."""
        return language.written(self.terms)

    def __bool__(self) -> bool:
        return bool(self.terms)

    @property
    def states(self) -> tuple[str, ...]:
        """The states that it asks for; empty if it asks for none."""
        found = [term.values for term in self.terms if term.key == "state" and not term.negated]
        return tuple(str(value) for value in found[0]) if len(found) == 1 else ()

    def with_states(self, *states: str) -> Self:
        """The query for other states, or for all states if none is passed."""
        rest = tuple(term for term in self.terms if term.key != "state" or term.negated)
        return replace(self, terms=(*((Term("state", states),) if states else ()), *rest))

    def without(self, index: int) -> Self:
        """The query without one of its terms."""
        return replace(self, terms=(*self.terms[:index], *self.terms[index + 1 :]))

    def condition(self) -> Condition | None:
        """What the stored values of jobs have to be; None for a query without terms.

        Raises:
            InvalidArgument: A value cannot be compared, such as a time outside of the years 1 to 9999.
        """
        found = [conditions.condition(term) for term in self.terms]
        return and_(*found) if found else None

    def statement(self) -> Select[Any]:
        """The `select(Job)` of the query, without an order. Raises `InvalidArgument` as `condition` does."""
        found = self.condition()
        return select(Job) if found is None else select(Job).where(found)

    def widened(self, *, by_state: bool = True) -> Condition | None:
        """`condition()`, which in negated terms also finds all jobs that may have a redacted value.

        Args:
            by_state: Whether the rows can be found by an index on the state.
        """
        found = []
        for term in self.terms:
            each = conditions.condition(term)
            if term.key == "state" and not by_state:
                each = conditions.unindexed_state(*map(str, term.values))
                each = ~each if term.negated else each
            found.append(or_(each, may_hide()) if term.negated and term.key in _SEES_VALUES else each)
        return and_(*found) if found else None

    @property
    def needs_check(self) -> bool:
        """Whether `matches` can be false for a job that the statement finds."""
        return any(term.key in _SEES_VALUES for term in self.terms)

    def matches(self, job: Any) -> bool:
        """Whether the terms apply to a job as it is shown, in particular without its redacted values."""
        return all(matching.applies(term, job) for term in self.terms if term.key in _SEES_VALUES)

    def refuse_hidden(self, hidden: Collection[str]) -> None:
        """Raise `InvalidArgument` if the query asks for a field that is hidden from a user.

        Args:
            hidden: Names of fields: "args", "meta" or "recorded".
        """
        for term in self.terms:
            field = term.key
            if field == "meta" and term.path[0] in RECORDED and "recorded" in hidden:
                field = "recorded"
            if field in hidden:
                raise InvalidArgument(
                    f"you cannot search {term.key}, as its values are hidden from you:"
                    f" leave out {display.shown(str(term), 60)}"
                )


def parse(text: str) -> Query:
    """The query that a text is.

    Raises:
        InvalidArgument: The text is not a query. The message says what is wrong with which part.
    """
    return Query(language.parse(text))


def of(terms: Iterable[Term]) -> Query:
    """The query with some terms."""
    return Query(tuple(terms))


def may_hide() -> Condition:
    """Whether a job may have a redacted value: all jobs that have one, and few others."""
    names = [
        name
        for name, worker in registry.items()
        if worker._redacted or (encryption.is_used and encryption.of(name) is not None)
    ]
    marked = filters.meta("redact").exists()
    sealed = filters.args(encryption.FIELD).exists()
    return or_(marked, sealed, Job.worker.in_(names))
