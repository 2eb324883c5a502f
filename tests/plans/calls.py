"""The calls of a node that read or change the table of jobs."""

from contextlib import suppress
from functools import partial
from typing import Any

from oban.database.transaction import Transaction
from oban.errors import JobNotFound
from oban.models import Job
from oban.repository import (
    acknowledge,
    fetch,
    job_facts,
    management,
    poll,
    rescue,
    retry,
    runs,
    sample,
    stage,
    stats,
    waiting,
)
from oban.repository import prune as prune_module
from oban.repository.acknowledge import Ack
from oban.repository.prune import Rule
from oban.repository.runs import RunKey
from oban.repository.selection import parse
from oban.types import JobState
from tests.plans import unique_calls
from tests.plans.call import Call
from tests.plans.table import EXECUTING, LIVE

QUEUE = "oban_jobs_state_queue_priority_scheduled_at_id_index"
STAGING = "oban_jobs_staging_index"
KEY = "oban_jobs_pkey"
EXHAUSTED = "oban_jobs_exhausted_index"
ENDED = {
    state: f"oban_jobs_{state.value}_at_index"
    for state in (JobState.COMPLETED, JobState.CANCELLED, JobState.DISCARDED)
}
#: About as many jobs of the table are due, but not available yet.
UNSTAGED = 20_000
OWNER = f"{LIVE}03"
DAY, LEASE, AGE = 86400.0, 60.0, 3600.0


def run_keys(count: int) -> list[RunKey]:
    """Runs in the table whose producers are alive."""
    return [(id_, 1, f"{LIVE}{id_ // 5000 % 10:02}") for id_ in range(5000, 5000 * (count + 1), 5000)]


def numbers(last_digits: int) -> list[int]:
    """The ids of 50 jobs in one state."""
    return [id_ + last_digits for id_ in range(0, 5000, 100)]


def fetching(queue: str, demand: int, rows: int | None = None) -> Call:
    rows = demand if rows is None else rows
    return Call(
        lambda tx: fetch.fetch(tx, queue, demand, "node", OWNER),
        *({QUEUE, KEY}, rows, 30, rows, queue == "media"),
    )


def acknowledging(count: int, outcome: str = "completed", **more: Any) -> Call:
    acks = [Ack(*run, outcome, **more) for run in run_keys(count)]
    return Call(lambda tx: acknowledge.acknowledge(tx, acks), {KEY}, count, 50, count)


def turn(count: int, **more: Any) -> Call:
    acks = [Ack(*run, "completed", **more) for run in run_keys(count)]
    return Call(
        lambda tx: fetch.acknowledge_and_fetch(tx, acks, "default", count, "node", OWNER),
        *({QUEUE, KEY}, 2 * count, 40, count),
    )


def prune(state: JobState, limit: int = 1000, **which: Any) -> Call:
    rule = Rule(state, 5 * DAY, **which)
    return Call(
        lambda tx: prune_module.prune(tx, rule, limit),
        {ENDED[state], KEY},
        limit,
        10,
        limit,
    )


def ended_job(tx: Transaction, job_id: int) -> Job | None:
    # On SQLite the table is empty.
    with suppress(JobNotFound):
        return waiting.ended_job(tx, parse([job_id]))
    return None


#: Calls that only read come first, as the others leave dead rows when they are rolled back.
CALLS: dict[str, Call] = {
    "seconds until due": Call(stage.seconds_until_due, {STAGING}, 1, 5, 1),
    "poll": Call(
        lambda tx: poll.poll(tx, "Oban", ("default", "media", "few", "empty")),
        *({QUEUE, STAGING, unique_calls.ENTRY}, 5, 20, 1),
        walks=True,
    ),
    "lost runs": Call(lambda tx: runs.lost_runs(tx, run_keys(50)), {KEY}, 50, 6, 0),
    "unknown runs": Call(lambda tx: runs.unknown_runs(tx, OWNER, ()), {QUEUE}, EXECUTING, 2, 20, walks=True),
    "runs of owners": Call(lambda tx: runs.runs_of(tx, [OWNER]), {QUEUE}, EXECUTING, 2, 20, walks=True),
    "a claimed job": Call(lambda tx: runs.load_run(tx, run_keys(1)[0]), {KEY}, 1, 6, 1),
    "a job that has ended": Call(lambda tx: ended_job(tx, 1), {KEY}, 1, 6, 1),
    "a job that has not ended": Call(lambda tx: ended_job(tx, 60), {KEY}, 1, 6, 0),
    "whether all queues are empty": Call(lambda tx: waiting.is_empty(tx, None), {QUEUE, STAGING}, 1, 6, 0),
    "whether a queue is empty": Call(
        lambda tx: waiting.is_empty(tx, "empty"), {QUEUE, STAGING}, UNSTAGED, 2, 1
    ),
    "orphans": Call(lambda tx: rescue.orphans(tx, LEASE, AGE), {QUEUE}, EXECUTING, 5, 200, walks=True),
    "exhausted": Call(rescue.exhausted, {EXHAUSTED}, 0, 0, 0),
    "prunable": Call(
        lambda tx: prune_module.prunable(tx, Rule(JobState.COMPLETED, 5 * DAY), 1000),
        *({ENDED[JobState.COMPLETED]}, 1000, 10, 1000),
    ),
    "delete stale producers": Call(
        lambda tx: rescue.delete_stale_producers(tx, LEASE), {QUEUE}, EXECUTING, 5, 0, walks=True
    ),
    **{
        f"facts of {what}": Call(
            partial(job_facts.read_facts, job_id=id_, lease=LEASE),
            *({QUEUE, KEY, STAGING}, EXECUTING, 5, 1),
            walks=True,
            # It names the table several times; another test reads that plan.
            on_sqlite=False,
        )
        for what, id_ in {"the last job": 999_988, "an ended job": 1, "a job that is due": 300_091}.items()
    },
    # It walks the dead rows of two states.
    "count up to 50 of each queue and state": Call(
        lambda tx: stats.count_some(tx, 50), {QUEUE}, 10 * 51, 50, 1, walks=True
    ),
    "oldest available": Call(
        lambda tx: stats.oldest_available(tx, ["default", "media", "mailers", "few"]),
        *({QUEUE}, 40, 5, 1),
        walks=True,
    ),
    "sample": Call(
        lambda tx: sample.load_sample(tx, "Oban", 50), {QUEUE, STAGING}, 10 * 51, 50, 1, walks=True
    ),
    # An index page has more than 50 entries.
    "count the rest": Call(
        lambda tx: sample.count_rest(tx, {"available": "default", "completed": "a"}),
        *({QUEUE}, 2 * sample.MAX_REST // 50, 1, 1),
        walks=True,
    ),
    "count named queues": Call(
        lambda tx: sample.count_named(tx, ["default"], 50), {QUEUE}, 8, 50, 8, walks=True
    ),
    "count recent": Call(lambda tx: stats.count_recent(tx, 100), {STAGING, *ENDED.values()}, 400, 5, 1),
    "discard exhausted": Call(rescue.discard_exhausted, {EXHAUSTED, KEY}, 0, 0, 0),
    **{f"fetch {demand}": fetching("default", demand) for demand in (1, 10, 50, 200, 1000)},
    "fetch 50 of a drained queue": fetching("media", 50),
    "fetch 50 of a queue with 20": fetching("few", 50, 20),
    "fetch 50 of an empty queue": fetching("empty", 50, 0),
    "claim 50": Call(lambda tx: fetch.claim(tx, "default", 50, "node", OWNER), {QUEUE, KEY}, 50, 30, 50),
    "acknowledge 1": acknowledging(1),
    "acknowledge 50": acknowledging(50),
    "acknowledge 200 failures": acknowledging(200, "failed", error="x", delay=5.0),
    "acknowledge 50 with traces": acknowledging(50, trace="0af7651916cd43dd8448eb211c80319c"),
    "put back 50": acknowledging(50, "released"),
    "turn of 1": turn(1),
    "turn of 50": turn(50),
    "turn of 50 with traces": turn(50, trace="0af7651916cd43dd8448eb211c80319c"),
    "stage": Call(stage.stage, {STAGING, KEY}, stage.BATCH, 30, stage.BATCH),
    "rescue": Call(lambda tx: rescue.rescue(tx, LEASE, AGE), {QUEUE, KEY}, EXECUTING, 50, 200, walks=True),
    **{f"prune {state.value}": prune(state) for state in ENDED},
    "prune 10,000": prune(JobState.COMPLETED, 10_000),
    "prune a queue": prune(JobState.COMPLETED, queue="default"),
    "prune a worker": prune(JobState.COMPLETED, worker="app.Worker"),
    "prune the others": prune(
        JobState.COMPLETED, excluded_queues=("media",), excluded_workers=("app.Other",)
    ),
    "cancel 50": Call(lambda tx: management.cancel_jobs(tx, parse(numbers(60))), {KEY}, 50, 50, 50),
    "retry 50": Call(lambda tx: retry.retry_jobs(tx, parse(numbers(5))), {KEY}, 50, 50, 50),
    "delete 50": Call(lambda tx: management.delete_jobs(tx, parse(numbers(5))), {KEY}, 50, 50, 50),
    **unique_calls.CALLS,
}
