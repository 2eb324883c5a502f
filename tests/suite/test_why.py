"""`why` names each reason why a job does not run, with advice that lets it run."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL

from oban import Job, JobState, Oban, SyncOban
from oban.errors import InvalidTarget, NotEnqueued
from tests.support.databases import DATABASES
from tests.support.explaining import QUEUE, Explained, Scene, now, scene, sync_client
from tests.support.jobs import reaches, row_of
from tests.support.rows import lasting_url
from tests.support.waiting import eventually

SetUp = Callable[[Scene], Awaitable[int]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A job that does not run, and what `why` says about it.

    `texts` are parts of the reasons' texts and advice, in their order. In `commands`, `{id}` stands for the
    job's id. If the advice can be followed in a test, `follows` is the number of commands to run, and `node`
    has the options of the node that runs the job then.
    """

    set_up: SetUp
    codes: list[str]
    texts: list[str]
    commands: list[str] = field(default_factory=list)
    follows: int | None = None
    node: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)


CASES: dict[str, Case] = {}


def case(name: str, **options: Any) -> Callable[[SetUp], SetUp]:
    def add(set_up: SetUp) -> SetUp:
        CASES[name] = Case(set_up=set_up, **options)
        return set_up

    return add


@pytest.fixture(scope="module", params=DATABASES)
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture(scope="module")
def sync(url: URL) -> Iterator[SyncOban]:
    with sync_client(url) as made:
        yield made


@pytest.fixture
async def stage(oban: Oban, url: URL, sync: SyncOban) -> AsyncIterator[Scene]:
    async with scene(oban, url, sync) as made:
        yield made


# -- jobs that have ended, or wait for somebody --------------------------------------------------


@case(
    "completed",
    codes=["completed"],
    texts=["It has ended: it was completed at 2024-03-09 22:18:30 UTC, ", "To run it once more, retry it:"],
    commands=["oban jobs retry {id}"],
    follows=1,
    node={},
)
async def completed(stage: Scene) -> int:
    return await stage.job("completed")


@case(
    "cancelled",
    codes=["cancelled"],
    texts=["it was cancelled at ", "The last error is: not needed"],
    commands=["oban jobs retry {id}"],
    follows=1,
    node={},
)
async def cancelled(stage: Scene) -> int:
    return await stage.job("cancelled", errors=[{"attempt": 1, "at": "x", "error": "not needed"}])


@case(
    "discarded with all attempts used",
    codes=["discarded"],
    texts=[
        "it was discarded at ",
        "It has used 3 of 3 attempts. The last error is: ValueError: no such address",
        "Correct the cause, and then retry it, which allows one more attempt",
    ],
    commands=["oban jobs retry {id}"],
    follows=1,
    node={},
)
async def discarded(stage: Scene) -> int:
    error = 'Traceback (most recent call last):\n  File "a.py", line 1\nValueError: no such address'
    return await stage.job(
        "discarded", attempt=3, max_attempts=3, errors=[{"attempt": 3, "at": "x", "error": error}]
    )


@case(
    "discarded early",
    codes=["discarded"],
    texts=["It was in attempt 1 of 20."],
    commands=["oban jobs retry {id}"],
)
async def discarded_early(stage: Scene) -> int:
    return await stage.job("discarded")


@case(
    "suspended",
    codes=["suspended"],
    texts=["It is suspended: it waits until somebody retries it."],
    commands=["oban jobs retry {id}"],
    follows=1,
    node={},
)
async def suspended(stage: Scene) -> int:
    job = Explained.new()
    job.state = JobState.SUSPENDED
    return (await stage.oban.enqueue(job)).id


@case(
    "a unique job that cannot be retried",
    codes=["cancelled", "unique"],
    texts=["the job is unique, and job {other}, which is scheduled, is in the way.", "or cancel it first:"],
    commands=["oban jobs retry {id}", "oban jobs cancel {other}"],
)
async def unique(stage: Scene) -> int:
    job = await stage.oban.enqueue(Explained.new(unique=True))
    await stage.oban.cancel_job(job)
    other = await stage.oban.enqueue(Explained.new(unique=True, schedule_in=3600))
    stage.names["other"] = other.id
    return job.id


@case(
    "a unique job that an ended one keeps from being retried",
    codes=["completed", "unique"],
    texts=["job {other}, which is completed, is in the way.", "or delete it first:"],
    commands=["oban jobs retry {id}", "oban jobs delete {other}"],
)
async def unique_ended(stage: Scene) -> int:
    rule = {"states": ["completed"], "fields": ["worker"]}
    stage.names["other"] = await stage.job("completed", unique_key="k", unique_rule=rule)
    return await stage.job("completed", unique_key="k", unique_rule=rule)


@case(
    "as many attempts as there can be",
    codes=["discarded", "attempts_limit"],
    texts=["It has used 32767 of 32,767 attempts.", "A retry changes nothing", "Enqueue a new job"],
    commands=["oban jobs retry {id}"],
)
async def attempts_limit(stage: Scene) -> int:
    return await stage.job("discarded", attempt=32767, max_attempts=32767)


# -- jobs that wait for their time ---------------------------------------------------------------


@case(
    "scheduled",
    codes=["scheduled"],
    texts=["It is not due before ", ", in 4 minutes: the clock of the database says ", "Wait, or retry it"],
    commands=["oban jobs retry {id}"],
    follows=1,
)
async def scheduled(stage: Scene) -> int:
    await stage.node()
    return (await stage.oban.enqueue(Explained.new(schedule_in=299))).id


@case(
    "retryable",
    codes=["retryable"],
    texts=["Attempt 2 of 20 failed: OSError: refused. It is not due before "],
    commands=["oban jobs retry {id}"],
    follows=1,
)
async def retryable(stage: Scene) -> int:
    await stage.node()
    return await stage.job(
        "retryable", attempt=2, errors=[{"attempt": 2, "at": "x", "error": "OSError: refused"}]
    )


@case(
    "due at the end of time",
    codes=["scheduled", "no_node"],
    texts=["It is due at the end of time", "No node is alive at all."],
    commands=["oban jobs retry {id}", "oban start --queues mail:10"],
    follows=1,
    node={},
)
async def never_due(stage: Scene) -> int:
    return await stage.job("scheduled", scheduled_at=datetime.max.replace(tzinfo=UTC))


@case(
    "due, but no node is alive",
    codes=["no_node"],
    texts=["No node is alive at all. No live node runs the queue mail.", "Start a node that runs it:"],
    commands=["oban start --queues mail:10"],
    node={},
    follows=0,
)
async def due_without_node(stage: Scene) -> int:
    return await stage.job("scheduled", scheduled_at=now() - timedelta(minutes=5))


@case(
    "due a moment ago",
    codes=["not_staged"],
    texts=["It has been due since ", "A node makes it available within a moment."],
)
async def due_now(stage: Scene) -> int:
    await stage.heartbeat()
    return await stage.job("scheduled", scheduled_at=now())


@case(
    "due after many others",
    codes=["not_staged"],
    texts=["5 minutes ago. 2 jobs are due before it, and the nodes make 5,000 of them available at a time."],
    commands=["oban jobs retry {id}"],
)
async def due_later(stage: Scene) -> int:
    await stage.heartbeat()
    due = now() - timedelta(minutes=5)
    await stage.job("retryable", scheduled_at=due - timedelta(minutes=1))
    await stage.job("scheduled", scheduled_at=due)
    return await stage.job("scheduled", scheduled_at=due)


@case(
    "due, and not staged for long",
    codes=["not_staged"],
    texts=["Nodes are alive, but none of them makes it available.", "look at the logs of the nodes."],
    commands=["oban jobs retry {id}"],
    follows=1,
    node={},
)
async def never_staged(stage: Scene) -> int:
    await stage.heartbeat()
    return await stage.job("scheduled", scheduled_at=now() - timedelta(minutes=5))


@case(
    "scheduled in a paused queue",
    codes=["scheduled", "paused"],
    texts=["It is not due before ", "The queue mail is paused: "],
    commands=["oban jobs retry {id}", "oban queues resume mail"],
    follows=2,
)
async def scheduled_and_paused(stage: Scene) -> int:
    await stage.oban.pause_queue(QUEUE)
    await stage.node()
    return (await stage.oban.enqueue(Explained.new(schedule_in=299))).id


# -- attempts ------------------------------------------------------------------------------------


@case(
    "available without an attempt left",
    codes=["attempts_used_up", "no_leader", "no_node"],
    texts=[
        "It has used all of its 2 attempts, so that no node fetches it.",
        "Nobody discards it, because no node",
    ],
    commands=["oban jobs update {id} --set-max-attempts 3", "oban start", "oban start --queues mail:10"],
    follows=1,
    node={},
)
async def attempts_used_up(stage: Scene) -> int:
    return await stage.job(attempt=2, max_attempts=2)


@case(
    "scheduled without an attempt left",
    codes=["scheduled", "attempts_used_up"],
    texts=["It is not due before", "It has used all of its 2 attempts"],
    commands=["oban jobs retry {id}", "oban jobs update {id} --set-max-attempts 3"],
)
async def scheduled_without_attempts(stage: Scene) -> int:
    await stage.heartbeat()
    return await stage.job("scheduled", attempt=2, max_attempts=2)


# -- nodes ---------------------------------------------------------------------------------------


@case(
    "the node of its queue is dead",
    codes=["no_node"],
    texts=[
        "No live node runs the queue mail.",
        " The node worker-1 ran it, and sent its last heartbeat 5 minutes ago.",
    ],
    commands=["oban start --queues mail:10"],
    follows=0,
    node={},
)
async def dead_node(stage: Scene) -> int:
    await stage.heartbeat(age=310)
    return await stage.job()


@case(
    "nodes run other queues",
    codes=["no_node"],
    texts=[
        "Live nodes run: media, reports.",
        "Start a node that runs it, or let the nodes that are alive run it",
    ],
    commands=["oban start --queues mail:10", "oban queues start mail --name shop"],
)
async def other_queues(stage: Scene) -> int:
    await stage.heartbeat(queue="reports", name="shop")
    await stage.heartbeat(queue="media", name="shop")
    return await stage.job()


@case(
    "a queue to start on nodes that run others",
    codes=["no_node"],
    texts=["Live nodes run: reports."],
    commands=["oban start --queues mail:10", "oban queues start mail"],
    follows=2,
)
async def other_queue_of_a_node(stage: Scene) -> int:
    await stage.node(queues={"reports": 1})
    return await stage.job()


@case(
    "a misspelt queue",
    codes=["no_node"],
    texts=["Live nodes run: mail.", "Did you mean mail? Then move the job"],
    commands=["oban jobs update {id} --set-queue mail", "oban start --queues mial:10"],
    follows=1,
)
async def misspelt_queue(stage: Scene) -> int:
    await stage.node()
    return await stage.job(queue="mial")


@case(
    "a queue that was stopped",
    codes=["stopped"],
    texts=["A command has stopped the queue mail on all nodes (", "Start it again:"],
    commands=["oban queues start mail"],
    follows=1,
)
async def stopped(stage: Scene) -> int:
    node = await stage.node(queues={QUEUE: 1, "other": 1})
    await node.stop_queue(QUEUE)

    async def gone() -> bool:
        return not await node.check_cluster(QUEUE)

    await eventually(gone)
    return await stage.job()


@case(
    "a queue that was stopped on a node",
    codes=["stopped"],
    texts=["A command has stopped the queue mail on worker-1 ("],
    commands=["oban queues start mail --node worker-1"],
    follows=1,
)
async def stopped_there(stage: Scene) -> int:
    await stage.oban.stop_queue(QUEUE, node="worker-1")
    await stage.node(queues={QUEUE: 1, "other": 1})
    return await stage.job()


@case(
    "a stopped queue whose last jobs run",
    codes=["stopped"],
    texts=["A command has stopped the queue mail on all nodes"],
    commands=["oban queues start mail"],
)
async def stopping(stage: Scene) -> int:
    await stage.oban.stop_queue(QUEUE)
    await stage.heartbeat(paused=True)
    return await stage.job()


@case(
    "a node with old heartbeats",
    codes=["node_silent"],
    texts=[
        "have sent no heartbeat for 50 seconds, and fetch no jobs until they do: worker-1.",
        "Look at their logs",
    ],
)
async def silent(stage: Scene) -> int:
    await stage.heartbeat(age=50)
    return await stage.job()


@case(
    "a queue with a name that no queue has",
    codes=["no_node"],
    texts=["No node can run the queue 'my mail': another program has stored a name", "Move the job"],
    commands=["oban jobs update {id} --set-queue default"],
    follows=1,
    node={"queues": {"default": 1}},
)
async def impossible_queue(stage: Scene) -> int:
    return await stage.job(queue="my mail")


# -- paused queues -------------------------------------------------------------------------------


@case(
    "paused by a command",
    codes=["paused"],
    texts=["The queue mail is paused: on worker-1, a command has paused the queue (", "Resume it:"],
    commands=["oban queues resume mail"],
    follows=1,
)
async def paused(stage: Scene) -> int:
    await stage.node()
    await stage.oban.pause_queue(QUEUE)
    return await _when_paused(stage)


@case(
    "paused on one node",
    codes=["paused"],
    texts=["on worker-1, a command has paused the queue on this node ("],
    commands=["oban queues resume mail"],
    follows=1,
)
async def paused_on_node(stage: Scene) -> int:
    await stage.node()
    await stage.oban.pause_queue(QUEUE, node="worker-1")
    return await _when_paused(stage)


@case(
    "all queues are paused",
    codes=["paused"],
    texts=["on worker-1, a command has paused all queues ("],
    commands=["oban queues resume mail"],
    follows=1,
)
async def all_paused(stage: Scene) -> int:
    await stage.node()
    await stage.oban.pause_all_queues()
    return await _when_paused(stage)


@case(
    "all queues of a node are paused",
    codes=["paused"],
    texts=["on worker-1, a command has paused all queues of this node ("],
    commands=["oban queues resume mail"],
    follows=1,
)
async def all_paused_on_node(stage: Scene) -> int:
    await stage.node()
    await stage.oban.pause_all_queues(node="worker-1")
    return await _when_paused(stage)


@case(
    "configured to start paused",
    codes=["paused"],
    texts=["on worker-1, the configuration of the node starts it paused.", "Resume it:"],
    commands=["oban queues resume mail"],
    follows=1,
)
async def configured_paused(stage: Scene) -> int:
    await stage.node(queues={QUEUE: {"limit": 1, "paused": True}})
    return await stage.job()


@case(
    "configured to start paused, against an earlier command",
    codes=["paused"],
    texts=["the configuration of the node pauses it at each start, whatever was resumed before ("],
    commands=["oban queues resume mail"],
    follows=1,
)
async def paused_since_start(stage: Scene) -> int:
    await stage.oban.resume_queue(QUEUE)
    await stage.node(queues={QUEUE: {"limit": 1, "paused": True}})
    return await stage.job()


@case(
    "paused nodes of several instances",
    codes=["paused"],
    texts=[
        "on elixir@1, it was paused by a command of the implementation that runs the node; on worker-1, a",
        "command has paused the queue (",
    ],
    commands=["oban queues resume mail", "oban queues resume mail --name shop"],
)
async def paused_elsewhere(stage: Scene) -> int:
    await Oban(stage.oban.engine, name="shop").pause_queue(QUEUE)
    await stage.heartbeat("elixir@1", paused=True, lease=None)
    await stage.heartbeat(name="shop", paused=True)
    return await stage.job()


@case(
    "resumed, which the node has not noticed",
    codes=["paused"],
    texts=["on worker-1, it was resumed, which the node has yet to notice."],
    commands=["oban queues resume mail"],
)
async def resumed(stage: Scene) -> int:
    await stage.oban.resume_queue(QUEUE)
    await stage.heartbeat(paused=True)
    return await stage.job()


async def _when_paused(stage: Scene) -> int:
    async def is_paused() -> bool:
        return all(info.paused for info in await stage.oban.check_cluster(QUEUE))

    await eventually(is_paused)
    return await stage.job()


# -- workers -------------------------------------------------------------------------------------


@case(
    "a worker that no node knows",
    codes=["worker_unknown", "next"],
    texts=[
        "No node that runs the queue mail knows the worker app.Maler.",
        "An attempt there fails with UnknownWorker. Did you mean app.Mailer?",
        "Import the module that defines the worker",
    ],
)
async def unknown_worker(stage: Scene) -> int:
    await stage.heartbeat(workers=["app.Mailer", "app.Report"])
    return await stage.job(worker="app.Maler")


@case(
    "a worker that some nodes do not know",
    codes=["worker_unknown", "next"],
    texts=["worker-2 runs the queue and does not know the worker app.Mailer."],
)
async def partly_unknown_worker(stage: Scene) -> int:
    await stage.heartbeat("worker-1", workers=["app.Mailer"])
    await stage.heartbeat("worker-2", workers=[])
    return await stage.job(worker="app.Mailer")


@case(
    "a worker that was unknown to nodes that do not tell",
    codes=["retryable", "worker_unknown"],
    texts=["The last attempt failed because its node did not know the worker app.Mailer."],
    commands=["oban jobs retry {id}"],
)
async def unknown_worker_before(stage: Scene) -> int:
    await stage.heartbeat()
    error = "UnknownWorker: no worker named 'app.Mailer' is registered in this process; import"
    return await stage.job(
        "retryable", worker="app.Mailer", errors=[{"attempt": 1, "at": "x", "error": error}]
    )


@case("a worker of a script that a node knows", codes=["next"], texts=["Nothing keeps it from running"])
async def worker_of_script(stage: Scene) -> int:
    await stage.heartbeat(workers=["app.jobs.Mailer"])
    return await stage.job(worker="__main__.Mailer")


# -- places --------------------------------------------------------------------------------------


@case(
    "all places are taken",
    codes=["places_taken"],
    texts=[
        "All places of the queue mail are taken: 2 jobs of it run on worker-1, and 3 jobs are ahead of it."
    ],
    commands=["oban queues scale mail 4", "oban start --queues mail:10"],
)
async def places_taken(stage: Scene) -> int:
    owner = await stage.heartbeat(local_limit=2)
    for _ in range(2):
        await stage.executing(owner)
    at = now()
    await stage.job(priority=0, scheduled_at=at)
    await stage.job(priority=3, scheduled_at=at - timedelta(seconds=1))
    await stage.job(scheduled_at=at)
    # These come after it, or never run.
    await stage.job(priority=4, scheduled_at=at - timedelta(hours=1))
    await stage.job(priority=0, attempt=2, max_attempts=2)
    await stage.job(priority=0, queue="other")
    return await stage.job(scheduled_at=at)


@case(
    "it is the next one",
    codes=["places_taken"],
    texts=[
        "All places of the queue mail are taken: 1 job of it runs on worker-1, and this job is the next one."
    ],
    commands=["oban queues scale mail 2", "oban start --queues mail:10"],
)
async def next_one(stage: Scene) -> int:
    await stage.executing(await stage.heartbeat(local_limit=1))
    return await stage.job()


@case(
    "all places of the nodes that are not paused are taken",
    codes=["places_taken", "paused"],
    texts=["1 job of it runs on worker-1", "is paused: on worker-2, "],
    commands=["oban queues scale mail 2", "oban start --queues mail:10", "oban queues resume mail"],
)
async def partly_paused(stage: Scene) -> int:
    await stage.executing(await stage.heartbeat(local_limit=1))
    await stage.heartbeat("worker-2", paused=True)
    return await stage.job()


@case(
    "jobs are ahead of it",
    codes=["jobs_ahead"],
    texts=[
        "1 job is ahead of it in the queue mail",
        "or give it a higher priority, which is a smaller number:",
    ],
    commands=["oban jobs update {id} --set-priority 0"],
)
async def jobs_ahead(stage: Scene) -> int:
    await stage.heartbeat()
    await stage.job(priority=1)
    return await stage.job()


@case(
    "nothing keeps it",
    codes=["next"],
    texts=["Nothing keeps it from running: a node fetches it within a moment"],
)
async def nothing(stage: Scene) -> int:
    await stage.heartbeat()
    return await stage.job()


@case(
    "nobody fetches it",
    codes=["not_fetched"],
    texts=["there are free places on worker-1, but no node has fetched it for 5 minutes.", "locked its row"],
)
async def not_fetched(stage: Scene) -> int:
    await stage.heartbeat()
    return await stage.job(scheduled_at=now() - timedelta(minutes=5))


# -- jobs that execute ---------------------------------------------------------------------------


@case(
    "on a live node",
    codes=["executing"],
    texts=[
        "It runs on the node worker-1, which began attempt 1 of 20 at ",
        ", 10 minutes ago, and sent its last heartbeat 3 minutes ago.",
        "If that node is dead, the leader rescues the job by ",
        ", in 9 minutes, and it runs again then. Wait until it ends, or cancel it:",
    ],
    commands=["oban jobs cancel {id}"],
)
async def executing(stage: Scene) -> int:
    await stage.leader()
    await stage.heartbeat("worker-2")
    return await on_silent(stage)


async def on_silent(stage: Scene, age: float = 200, minutes: float = 10, **columns: Any) -> int:
    """A job on the node worker-1, which has a lease of 10 minutes, and sent a heartbeat `age` seconds ago."""
    owner = await stage.heartbeat(age=age, lease=600, running=None)
    return await stage.executing(owner, attempted_at=now() - timedelta(minutes=minutes), **columns)


@case(
    "on the only node",
    codes=["executing"],
    texts=[
        "sent its last heartbeat 3 minutes ago.",
        "If that node is dead, no other node is alive that could rescue the job. One that you start does so",
        ", in 10 minutes, or within 10 minutes of its start if that is later, and it is discarded then",
    ],
)
async def on_only_node(stage: Scene) -> int:
    # It has stayed the leader after its last heartbeat, for as long as that is possible.
    await stage.leader("worker-1/1", seconds=500)
    await stage.heartbeat(queue="other", age=20)
    return await on_silent(stage, attempt=20)


@case(
    "on the leader", codes=["executing"], texts=["the leader rescues the job by ", ", in 10 minutes, and it"]
)
async def on_leader(stage: Scene) -> int:
    await stage.leader("worker-1/1", seconds=500)
    await stage.heartbeat("worker-2")
    return await on_silent(stage)


@case(
    "on a node that was started again, and leads",
    codes=["executing"],
    texts=["the leader rescues the job by ", ", in 9 minutes, and it runs again then."],
)
async def restarted(stage: Scene) -> int:
    await stage.leader("worker-1/2", seconds=590)
    await stage.heartbeat()
    return await on_silent(stage)


@case(
    "beside a node that was just started",
    codes=["executing"],
    texts=["the leader rescues the job by ", ", in 9 minutes, and it runs again then."],
)
async def beside_new_node(stage: Scene) -> int:
    await stage.heartbeat("worker-2", started=10, lease=600)
    return await on_silent(stage, age=290)


@case(
    "beside a node that has run for long",
    codes=["executing"],
    texts=["the leader rescues the job by ", ", in 7 minutes, and it runs again then."],
)
async def beside_old_node(stage: Scene) -> int:
    await stage.heartbeat("worker-2", lease=600)
    return await on_silent(stage, age=290)


@case(
    "began after the last heartbeat",
    codes=["executing"],
    texts=["the leader rescues the job by ", ", in 10 minutes, and it runs again then."],
)
async def began_after_heartbeat(stage: Scene) -> int:
    await stage.heartbeat("worker-2")
    return await on_silent(stage, minutes=2)


@case(
    "on a live node, without progress",
    codes=["executing", "takes_long"],
    texts=[", it reported 3 of 10 (30%): reading.", "It has reported no progress for 2 hours."],
    commands=["oban jobs cancel {id}", "oban jobs cancel {id}", "oban jobs retry {id}"],
)
async def without_progress(stage: Scene) -> int:
    reported_at = (now() - timedelta(hours=2)).isoformat()
    progress = {"attempt": 1, "done": 3, "total": 10, "message": "reading", "at": reported_at}
    return await stage.executing(
        await stage.heartbeat(running=None),
        attempted_at=now() - timedelta(hours=3),
        meta={"progress": progress},
    )


@case(
    "on a live node, for long",
    codes=["executing", "takes_long"],
    texts=["It runs on the node worker-1", "It has been running for 3 hours."],
    commands=["oban jobs cancel {id}", "oban jobs cancel {id}", "oban jobs retry {id}"],
)
async def takes_long(stage: Scene) -> int:
    meta = {"progress": {"attempt": 0, "done": 1, "at": now().isoformat()}}
    return await stage.executing(
        await stage.heartbeat(running=None), attempted_at=now() - timedelta(hours=3, minutes=1), meta=meta
    )


@case(
    "on a live node that does not run it",
    codes=["unlisted", "executing"],
    texts=["says in its heartbeats that it does not run the job", "its log says why that fails."],
    commands=["oban jobs cancel {id}", "oban jobs retry {id}", "oban jobs cancel {id}"],
    follows=2,
    node={},
)
async def unlisted(stage: Scene) -> int:
    return await stage.executing(await stage.heartbeat())


@case(
    "on a node with old heartbeats",
    codes=["executing", "node_silent"],
    texts=[
        "and sent its last heartbeat 40 seconds ago.",
        "The node worker-1 has sent no heartbeat for 40 seconds.",
        "the node counts as dead. Look whether it still runs.",
    ],
    commands=["oban jobs cancel {id}"],
)
async def on_silent_node(stage: Scene) -> int:
    return await stage.executing(await stage.heartbeat(age=40, running=None))


@case(
    "on a dead node",
    codes=["node_dead"],
    texts=[
        "The node worker-1 was lost while it ran the job: its last heartbeat is 5 minutes old",
        "The leader rescues it at its next look",
        "To run it at once, cancel it and retry it, but only if that node is really gone:",
    ],
    commands=["oban jobs cancel {id}", "oban jobs retry {id}"],
    follows=2,
    node={},
)
async def on_dead_node(stage: Scene) -> int:
    await stage.leader("worker-2")
    return await stage.executing(await stage.heartbeat(age=310), attempted_at=now() - timedelta(minutes=6))


@case(
    "on a dead node, and nobody leads",
    codes=["no_leader", "node_dead"],
    texts=["Nobody rescues it, because no node leads.", "Start a node, without leadership=False:"],
    commands=["oban start", "oban jobs cancel {id}", "oban jobs retry {id}"],
    follows=0,
    node={"lease": 1},
)
async def without_leader(stage: Scene) -> int:
    owner = await stage.heartbeat(age=310, lease=1)
    return await stage.executing(owner, attempted_at=now() - timedelta(minutes=6))


@case(
    "on a dead node that still leads",
    codes=["no_leader", "node_dead"],
    texts=["Nobody rescues it, because no node leads.", "Start a node, without leadership=False:"],
)
async def on_dead_leader(stage: Scene) -> int:
    await stage.leader("worker-1/1", seconds=5)
    return await stage.executing(await stage.heartbeat(age=70))


@case(
    "on a node without heartbeats",
    codes=["node_unknown"],
    texts=[
        "It executes on the node elixir@1, since ",
        "but no node sends heartbeats for it.",
        "The leader rescues it soon after ",
        ", in 57 minutes: it runs again then.",
    ],
    commands=["oban jobs cancel {id}", "oban jobs retry {id}"],
    follows=2,
    node={},
)
async def without_heartbeats(stage: Scene) -> int:
    await stage.leader()
    return await stage.executing("0b5f3a86-30e4-4c3a-9a67-1c8b7d1a2e01", "elixir@1")


@case(
    "on a dead node, in its last attempt",
    codes=["node_dead"],
    texts=["The leader rescues it soon after ", ": it is discarded then, as this was its last attempt."],
)
async def last_attempt_on_dead_node(stage: Scene) -> int:
    await stage.leader()
    owner = await stage.heartbeat(age=70)
    return await stage.executing(owner, attempted_at=now() - timedelta(seconds=20), attempt=20)


@case("on nobody", codes=["node_unknown"], texts=["It executes on a node that it does not name, since "])
async def on_nobody(stage: Scene) -> int:
    await stage.leader()
    return await stage.executing(attempted_by=[])


@pytest.mark.parametrize("name", CASES)
async def test_each_reason_is_named_with_its_advice(stage: Scene, name: str) -> None:
    expected = CASES[name]
    job_id = await expected.set_up(stage)
    explanation = await stage.why(job_id)
    shown = str(explanation)
    assert [reason.code for reason in explanation.reasons] == expected.codes, shown
    names = {"id": job_id, **stage.names}
    position = 0
    for text in expected.texts:
        found = shown.find(text.format_map(names), position)
        assert found >= 0, f"{text!r} is not in, or not in this order:\n{shown}"
        position = found + 1
    commands = [command for reason in explanation.reasons for command in reason.commands]
    if expected.commands or commands:
        assert (
            commands == [command.format_map(names) for command in expected.commands] or not expected.commands
        )
    job = await row_of(stage.oban, job_id)
    assert (explanation.job_id, explanation.state) == (job_id, job.state)
    assert (explanation.queue, explanation.worker) == (job.queue, job.worker)
    assert explanation.runs == (expected.codes[0] in ("executing", "unlisted"))
    assert all(reason.text and reason.advice for reason in explanation.reasons)
    if expected.follows is None:
        return
    for command in commands[: expected.follows]:
        if not command.startswith("oban start"):
            await stage.follow(command)
    if expected.node is not None:
        await stage.node(**expected.node)
    await stage.runs(job_id)


async def test_a_job_that_does_not_exist_is_explained(stage: Scene) -> None:
    async def reason(job_id: int) -> str:
        explanation = await stage.why(job_id)
        assert (explanation.state, explanation.queue, explanation.runs) == (None, None, False)
        (found,) = explanation.reasons
        assert found.code == "missing"
        return f"{found.text} {found.advice}"

    assert await reason(7) == "There is no job 7: this database has no jobs. Check which database this is."
    job_id = await stage.job()
    newer = await stage.job()
    assert f"There is no job {newer + 1}: the newest job of this database is {newer}." in await reason(
        newer + 1
    )
    await stage.oban.delete_job(job_id)
    deleted = await reason(job_id)
    assert f"There is no job {job_id} any more, or it was never committed." in deleted
    assert "completed and cancelled jobs after 1 day and discarded ones after 7 days" in deleted
    for impossible in (0, -1, 2**63):
        assert "There is no job" in await reason(impossible)


@pytest.mark.parametrize(("minutes", "shown"), [(5, "4 minutes ahead of"), (-5, "5 minutes behind")])
async def test_a_clock_that_differs_from_that_of_the_database_is_told(
    stage: Scene, monkeypatch: pytest.MonkeyPatch, minutes: int, shown: str
) -> None:
    job = await stage.oban.enqueue(Explained.new(schedule_in=60))
    skewed = timedelta(minutes=minutes, seconds=-2)
    monkeypatch.setattr("oban.clock.now", lambda: datetime.now(UTC) + skewed)
    explanation = await stage.why(job.id)
    assert f"The clock of this computer is {shown} it." in explanation.reasons[0].text


async def test_a_node_tells_which_workers_it_knows(stage: Scene, own_registry: None) -> None:
    node = await stage.node()
    job = await stage.oban.enqueue(Job(worker="tests.Lost", queue=QUEUE))
    await reaches(stage.oban, job, JobState.RETRYABLE)
    failed, unknown = (await stage.why(job.id)).reasons
    assert (failed.code, unknown.code) == ("retryable", "worker_unknown")
    assert failed.text.startswith("Attempt 1 of 20 failed: UnknownWorker: no worker named 'tests.Lost'")
    assert unknown.text.startswith("No node that runs the queue mail knows the worker tests.Lost.")
    await node.stop()

    class Lost(Explained, name="tests.Lost"):
        pass

    async with Oban(stage.oban.engine, node="worker-1", queues={QUEUE: 1}):
        assert [reason.code for reason in (await stage.why(job.id)).reasons] == ["retryable"]
        await stage.follow(f"oban jobs retry {job.id}")
        await stage.runs(job.id)


async def test_no_more_than_a_thousand_jobs_are_counted(stage: Scene) -> None:
    await stage.heartbeat()
    await stage.oban.enqueue_many([Explained.new() for _ in range(1002)])
    last = await stage.oban.enqueue(Explained.new())
    (reason,) = (await stage.why(last.id)).reasons
    assert reason.text.startswith("More than 1,000 jobs are ahead of it")


async def test_a_job_is_explained_in_the_transaction_of_the_caller(stage: Scene) -> None:
    async with stage.oban.engine.connect() as connection:
        job = await stage.oban.enqueue(Explained.new(schedule_in=60), session=connection)
        assert (await stage.oban.why(job, session=connection)).reasons[0].code == "scheduled"
        assert (await stage.oban.why(job)).reasons[0].code == "missing"


async def test_only_stored_jobs_can_be_explained(oban: Oban) -> None:
    with pytest.raises(NotEnqueued):
        await oban.why(Explained.new())
    with pytest.raises(InvalidTarget):
        await oban.why("1")  # type: ignore[arg-type]
