"""What each event does to a job in each state, tried on a database: `docs/reference/states.md` lists it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select

from oban import Job, JobState, SyncOban
from oban.repository import acknowledge, fetch, prune, rescue, stage
from oban.repository.acknowledge import Ack
from tests.support.internals import run_sync
from tests.support.rows import TABLE, row

OWNER = "0b5f3a86-30e4-4c3a-9a67-1c8b7d1a2e01"
PAST = datetime(2024, 3, 9, tzinfo=UTC)
FUTURE = datetime(2124, 3, 9, tzinfo=UTC)
#: Kept with a job that was recorded, and with one whose attempts are used up, so that each change shows.
_VARIANTS: tuple[dict[str, Any], ...] = (
    {"attempt": 1, "meta": {"recorded": True, "return": 1}},
    {"attempt": 2, "max_attempts": 2},
)


class Call(NamedTuple):
    """Does something to the job with this id, and maybe to others."""

    client: SyncOban
    job_id: int
    attempt: int

    def acknowledge(self, outcome: str, **values: Any) -> None:
        run_sync(
            self.client, acknowledge.acknowledge, [Ack(self.job_id, self.attempt, OWNER, outcome, **values)]
        )


Event = Callable[[Call], Any]
#: By the name of the event on the page. Some events have several forms.
EVENTS: dict[str, tuple[Event, ...]] = {
    "due": (lambda call: run_sync(call.client, stage.stage),),
    "fetch": (lambda call: run_sync(call.client, fetch.fetch, "default", 9, "node-2", OWNER),),
    "complete": (
        lambda call: call.acknowledge("completed"),
        lambda call: call.acknowledge("completed", value="1"),
    ),
    "snooze": (lambda call: call.acknowledge("snoozed", delay=60.0, snoozed=1),),
    "fail": (lambda call: call.acknowledge("failed", error="bad", delay=60.0),),
    "give up": (
        lambda call: call.acknowledge("discarded", error="bad"),
        lambda call: call.acknowledge("cancelled", error="bad"),
    ),
    "release": (lambda call: call.acknowledge("released"),),
    "rescue": (lambda call: run_sync(call.client, rescue.rescue, 1.0, 1.0),),
    "no attempt left": (lambda call: run_sync(call.client, rescue.discard_exhausted),),
    "prune": (
        lambda call: [
            run_sync(call.client, prune.prune, prune.Rule(state, 1.0), 9)
            for state in (JobState.COMPLETED, JobState.CANCELLED, JobState.DISCARDED)
        ],
    ),
    "cancel": (lambda call: call.client.cancel_job(call.job_id),),
    "retry": (
        lambda call: call.client.retry_job(call.job_id),
        lambda call: call.client.retry_job(call.job_id, schedule_in=timedelta(days=1)),
    ),
    "update": (
        lambda call: call.client.update_job(call.job_id, {"scheduled_at": FUTURE}),
        lambda call: call.client.update_job(call.job_id, {"scheduled_at": PAST - timedelta(days=1)}),
    ),
    "delete": (lambda call: call.client.delete_job(call.job_id),),
}


@dataclass
class Observed:
    """What an event did: the states before and after, where None is no row, and the columns that changed."""

    moves: set[tuple[str, str | None]] = field(default_factory=set)
    columns: set[str] = field(default_factory=set)


def observe(connection: Connection, client: SyncOban, event: Event, state: str) -> Observed:
    """Let an event happen to jobs in a state. What it changes is rolled back."""
    found = Observed()
    for variant in _VARIANTS:
        with connection.begin_nested() as savepoint:
            attempts = {"attempted_by": ["node-1", OWNER], "attempted_at": PAST}
            values = row(state, **{"scheduled_at": PAST, **attempts, **variant})
            job_id = connection.scalar(insert(TABLE).values(values).returning(TABLE.c.id))
            statement = select(TABLE).where(TABLE.c.id == job_id)
            before = connection.execute(statement).mappings().one()
            event(Call(client, job_id, variant["attempt"]))
            after = connection.execute(statement).mappings().one_or_none()
            savepoint.rollback()
        changed = {name for name in before if after is not None and before[name] != after[name]}
        if after is None or changed:
            found.moves.add((state, None if after is None else str(after["state"])))
            found.columns |= changed
    return found


def new_states(client: SyncOban) -> set[str]:
    """The states that a new job can have."""
    suspended = Job(worker="tests.Nobody")
    suspended.state = JobState.SUSPENDED
    jobs = [
        Job(worker="tests.Nobody"),
        Job(worker="tests.Nobody", scheduled_at=PAST),
        Job(worker="tests.Nobody", schedule_in=60),
        suspended,
    ]
    return {str(job.state) for job in client.enqueue_many(jobs)}
