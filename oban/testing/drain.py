"""`drain_queue`: runs the jobs of a queue, and counts how they ended."""

import logging
from collections import Counter, deque
from collections.abc import Coroutine
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypedDict, Unpack, overload

from oban import display, fields, suggestions
from oban.client import Oban
from oban.database.joined import AsyncCaller, SyncCaller
from oban.errors import ConfigError
from oban.registry import registry
from oban.repository import drain as repository
from oban.sync_client import SyncOban
from oban.testing import clients, runs
from oban.testing.runs import JobRunner
from oban.types import JobState

logger = logging.getLogger(__name__)

#: How a run can end, by the state of its job afterwards.
OUTCOMES = (
    JobState.CANCELLED,
    JobState.COMPLETED,
    JobState.DISCARDED,
    JobState.RETRYABLE,
    JobState.SCHEDULED,
)
#: How often a job can snooze in one drain, which would not end if it always did.
MAX_SNOOZES = 100


class DrainOptions(TypedDict, total=False):
    """The options of `drain_queue`, which documents them."""

    with_scheduled: bool | datetime
    with_recursion: bool
    with_safety: bool
    with_limit: int | None


@overload
def drain_queue(
    queue: str = "default",
    oban: Oban | str = "Oban",
    *,
    session: AsyncCaller | None = None,
    **options: Unpack[DrainOptions],
) -> Coroutine[Any, Any, dict[str, int]]: ...
@overload
def drain_queue(
    queue: str, oban: SyncOban, *, session: SyncCaller | None = None, **options: Unpack[DrainOptions]
) -> dict[str, int]: ...
@overload
def drain_queue(
    *,
    queue: str = "default",
    oban: SyncOban,
    session: SyncCaller | None = None,
    **options: Unpack[DrainOptions],
) -> dict[str, int]: ...
@overload
def drain_queue(
    queue: str = "default", oban: str = "Oban", *, session: SyncCaller, **options: Unpack[DrainOptions]
) -> dict[str, int]: ...
def drain_queue(
    queue: str = "default",
    oban: Oban | SyncOban | str = "Oban",
    *,
    session: Any = None,
    with_scheduled: bool | datetime = True,
    with_recursion: bool = True,
    with_safety: bool = False,
    with_limit: int | None = None,
) -> Any:
    """Run the jobs that wait in a queue, one after another, in the order in which a node starts them.

    Each runs as on a node: with its session, middleware, resources and timeout, and its outcome is stored.
    With `session`, or an `oban` that was created with a session or connection, all of that happens in its
    transaction, which is not committed. Calls of the jobs without `session=` belong to it as well.

    Await it with an `Oban`; with a `SyncOban`, it returns at once.

    Args:
        queue: The queue (default "default").
        oban: A client, or the name of one (default "Oban").
        session: The caller's session or connection, to run the jobs in its transaction (default: the
            client's). Instances of the jobs in it show how these ended.
        with_scheduled: Whether to run jobs that are due later as well, or a datetime, to run those that are
            due by then (default True). With False, only jobs run that are due now, by the clock of the test
            if it moves one.
        with_recursion: Whether to go on until no job waits (default True): with the jobs that these jobs
            enqueue and, with `with_scheduled`, those that fail or snooze. Otherwise each job that waits at
            the start has one attempt.
        with_safety: Whether an exception of a job is only stored as its outcome (default False). Otherwise it
            is also raised, after it was stored, unless an option of the worker such as `discard_on` says what
            to do then.
        with_limit: How many attempts there are at most (default: no limit).

    Returns:
        How many attempts ended in each state: `{"completed": 2, "cancelled": 0, "discarded": 0,
        "retryable": 1, "scheduled": 0}`.

    Raises:
        ConfigError: An argument has a wrong value.
        InstanceNotFound: There is no client of this name in this process.
        InvalidTarget: `session` is not a session or connection that the client can use.
        RuntimeError: A job has snoozed 100 times.
        Exception: What a job has raised, without `with_safety`.

    Example:
        ::

            counts = await drain_queue("mailers")
            assert counts["completed"] == 1
    """
    client = clients.resolve(oban, session)
    drain = Drain(
        fields.queue(queue),
        until=_until(with_scheduled),
        recursive=with_recursion,
        safe=with_safety,
        limit=_limit(with_limit),
    )
    if isinstance(client, Oban):
        return clients.named(_drain(client, session, drain), "drain_queue")
    return _drain_sync(client, session, drain)


async def _drain(client: Oban, session: Any, drain: "Drain") -> dict[str, int]:
    try:
        async with runs.on_loop(client, session) as runner:
            return await drain.run(runner)
    finally:
        if (caller := _session(client, session)) is not None:
            await runs.run_in(client._database, caller, repository.show_jobs, (), drain.ids)


def _drain_sync(client: SyncOban, session: Any, drain: "Drain") -> dict[str, int]:
    try:
        return runs.beside_thread(client, drain.run, session)
    finally:
        if (caller := _session(client, session)) is not None:
            client._database.run(caller, repository.show_jobs, (), drain.ids)


def _session(client: Oban | SyncOban, session: Any) -> Any:
    """The session or connection of a call, or else the session that its client was created with."""
    joined = client._database.joined
    return joined.session if session is None and joined is not None else session


class Drain:
    """One drain, with its options. `ids` are the jobs that have run."""

    def __init__(
        self,
        queue: str,
        *,
        until: datetime | Literal["all", "due"],
        recursive: bool,
        safe: bool,
        limit: int | None,
    ) -> None:
        self.ids: set[int] = set()
        self._queue = queue
        self._until = until
        self._recursive = recursive
        self._safe = safe
        self._limit = limit
        self._snoozes: Counter[int] = Counter()

    async def run(self, runner: JobRunner) -> dict[str, int]:
        """Run jobs until none waits; returns the number of attempts by the state that they ended in."""
        counts = dict.fromkeys(map(str, OUTCOMES), 0)
        find = partial(runner.run_in_transaction, repository.waiting_jobs, self._queue, self._until)
        waiting = deque(await find(1 if self._recursive else self._limit))
        attempts = 0
        while waiting and attempts != self._limit:
            job_id = waiting.popleft()
            attempt = await runner.run(job_id)
            if attempt is not None:
                attempts += 1
                self.ids.add(job_id)
                if attempt.job is not None:
                    state = str(attempt.job.state)
                    counts[state] = counts.get(state, 0) + 1
                    self._check_snoozes(job_id, state)
                if (error := attempt.error_to_raise(self._safe)) is not None:
                    raise error
            if self._recursive:
                waiting.extend(await find(1))
        if not attempts:
            self._log_unknown_queue()
        return counts

    def _log_unknown_queue(self) -> None:
        queues = sorted(set(registry.queues().values()))
        if queues and self._queue not in queues:
            shown, hint = display.shown(self._queue), suggestions.suggestion(self._queue, queues)
            logger.warning("drain_queue has run nothing, and no worker has the queue %s%s", shown, hint)

    def _check_snoozes(self, job_id: int, state: str) -> None:
        self._snoozes[job_id] += state == JobState.SCHEDULED
        if self._recursive and self._snoozes[job_id] >= MAX_SNOOZES:
            raise RuntimeError(
                f"job {job_id} has snoozed {MAX_SNOOZES} times, and would run again at once: pass"
                " with_recursion=False, with_limit=…, or with_scheduled=False"
            )


def _until(with_scheduled: object) -> datetime | Literal["all", "due"]:
    if isinstance(with_scheduled, bool):
        return "all" if with_scheduled else "due"
    if isinstance(with_scheduled, datetime):
        if with_scheduled.tzinfo is None:
            raise ConfigError(f"with_scheduled must carry a time zone; {with_scheduled.isoformat()} does not")
        return with_scheduled
    raise ConfigError(f"with_scheduled must be a bool or a datetime, not {display.shown(with_scheduled)}")


def _limit(with_limit: object) -> int | None:
    if with_limit is None or (
        isinstance(with_limit, int) and not isinstance(with_limit, bool) and with_limit > 0
    ):
        return with_limit
    raise ConfigError(f"with_limit must be a positive number of attempts, not {display.shown(with_limit)}")
