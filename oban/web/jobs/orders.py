"""The orders of the list of jobs, each of which an index gives, and the places in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import and_, or_

from oban.filters import Condition
from oban.models import Job
from oban.repository.selection import MAX_ID
from oban.types import ENDED_STATES, STATES
from oban.web.errors import WebError


@dataclass(frozen=True, slots=True)
class Order:
    """An order of the list.

    Attributes:
        name: Its name in addresses.
        label: Its name on the page.
        column: The column that decides; jobs with the same value are in the order of their ids.
        descending: Whether the largest values come first.
        states: The states of jobs that it is for.
        single: Whether it is for one of these states at a time.
    """

    name: str
    label: str
    column: str
    descending: bool
    states: Sequence[str]
    single: bool = False

    def suits(self, states: Sequence[str]) -> bool:
        """Whether jobs in these states, or in all if there are none, have this order."""
        if self.column == "id":
            return True
        return bool(states) and set(states) <= set(self.states) and not (self.single and len(states) > 1)

    def place(self, job: Job) -> "Place":
        """The place of a job."""
        return Place(None if self.column == "id" else getattr(job, self.column), job.id)


@dataclass(frozen=True, slots=True)
class Place:
    """The place of the job with this value and id."""

    value: datetime | None
    id: int

    def __str__(self) -> str:
        """The place in an address."""
        return str(self.id) if self.value is None else f"{self.value.isoformat()}_{self.id}"


_ENDED = [
    Order(f"{state.value}", f"Last {state.value}", f"{state.value}_at", True, (state.value,), single=True)
    for state in ENDED_STATES
]
ORDERS = {
    order.name: order
    for order in (
        Order("newest", "Newest", "id", True, STATES),
        Order("oldest", "Oldest", "id", False, STATES),
        Order("due", "Due first", "scheduled_at", False, ("scheduled", "retryable")),
        Order("running", "Longest running", "attempted_at", False, ("executing",)),
        *_ENDED,
    )
}


def parse_place(order: Order, text: str) -> Place:
    """The place that an address names; raises `WebError`."""
    time, _, number = text.rpartition("_")
    try:
        job_id = int(number)
        value = datetime.fromisoformat(time).astimezone(UTC) if order.column != "id" else None
        if not (number.isascii() and number.isdigit() and 0 <= job_id <= MAX_ID):
            raise ValueError
    except (ValueError, OverflowError):
        raise WebError(f"{text[:60]!r} is not a place in the list of jobs: go to its beginning.") from None
    return Place(value, job_id)


def beyond(order: Order, place: Place, *, backward: bool = False) -> Condition:
    """Whether jobs come after a place, or before it."""
    down = order.descending is not backward
    by_id: Condition = Job.id < place.id if down else Job.id > place.id
    if order.column == "id":
        return by_id
    column: Any = getattr(Job, order.column)
    # The first condition is for the index, which need not have the id.
    if down:
        return and_(column <= place.value, or_(column < place.value, by_id))
    return and_(column >= place.value, or_(column > place.value, by_id))


def until(order: Order, place: Place, *, backward: bool = False) -> Condition:
    """Whether jobs come before a place or are there; with `backward`, after it."""
    down = order.descending is not backward
    by_id: Condition = Job.id >= place.id if down else Job.id <= place.id
    if order.column == "id":
        return by_id
    column: Any = getattr(Job, order.column)
    if down:
        return and_(column >= place.value, or_(column > place.value, by_id))
    return and_(column <= place.value, or_(column < place.value, by_id))


def sorting(order: Order, *, backward: bool = False, unindexed: bool = False) -> tuple[Any, ...]:
    """The ORDER BY. With `unindexed`, no index gives the order, so that one on the state is used."""
    down = order.descending is not backward
    by_id: Any = Job.id + 0 if unindexed else Job.id
    columns = (by_id,) if order.column == "id" else (getattr(Job, order.column), by_id)
    return tuple(column.desc() if down else column.asc() for column in columns)
