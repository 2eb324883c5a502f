"""Makes scheduled and retryable jobs available when they become due, and polls for the whole node."""

from collections.abc import Callable

from oban import clock
from oban.config import Options
from oban.database.aio import Database
from oban.repository import poll, stage
from oban.runner.queues import Queues
from oban.runner.services.base import Service
from oban.runner.services.controller import Controller
from oban.telemetry import JobsStaged

#: Seconds until the next tick while another node stages the jobs that are due.
_LOCKED_PAUSE = 0.05
#: Seconds by which a poll can come early: a loop's timers are not exact, and two polls can share a statement.
_EARLY = 0.005


class Stager(Service):
    """Sleeps until the next job is due by the database's clock, but not longer than `stage_interval`.

    All nodes do this; each skips the jobs that another one has locked. When jobs have become available, it
    wakes the queues of its node, which then fetch them even if no notification arrives.

    The same statement polls for what no notification announced: every `poll_interval` for jobs, whose queues
    it wakes, and every `control_interval` for settings of queues and for changes of periodic entries, which
    the controller and the scheduler then read. If the
    statement fails, every queue looks for jobs itself. However often this or the staging fails, the next tick
    comes within `poll_interval`, and polls.
    """

    def __init__(self, database: Database, options: Options, queues: Queues, controller: Controller) -> None:
        super().__init__("stager", options.stage_interval, database.telemetry)
        self.database = database
        self._queues = queues
        self._controller = controller
        #: Called with what a poll finds about periodic entries.
        self.on_periodic: Callable[[tuple[int, str | None]], None] | None = None
        self._instance = options.name
        self._poll_interval = options.poll_interval
        self.max_backoff = min(self.max_backoff, self._poll_interval)
        self._control_interval = options.control_interval
        #: When to poll for jobs, and for settings, by the monotonic clock.
        self._jobs_at = self._settings_at = 0.0

    async def tick(self) -> float | None:
        due_in = await self._poll()
        if due_in is None or due_in > 0:
            next_poll = min(self._jobs_at, self._settings_at) - clock.monotonic()
            return max(0.0, min(self.interval, next_poll, self.interval if due_in is None else due_in))
        started_at = clock.monotonic()
        if count := await self.database.write(stage.stage):
            self._queues.wake()
            self.telemetry.emit(JobsStaged, count=count, duration=clock.monotonic() - started_at)
            return 0
        return min(_LOCKED_PAUSE, self.interval)

    async def _poll(self) -> float | None:
        """Return the seconds until the next job is due, and poll if it is time to."""
        now = clock.monotonic()
        # After a failure, the poll that is due next could come after the pause, too late.
        polls_jobs = self.failures > 0 or now + _EARLY >= self._jobs_at
        polls_settings = now + _EARLY >= self._settings_at
        if not (polls_jobs or polls_settings):
            return await self.database.read(stage.seconds_until_due)
        queues = tuple(self._queues.producers) if polls_jobs else ()
        try:
            found = await self.database.read(poll.poll, self._instance, queues)
        except Exception:
            # The statement may fail for a reason that does not concern the queues.
            self._queues.wake(queues)
            raise
        if polls_jobs:
            self._jobs_at = now + self._poll_interval
            self._queues.wake(found.queues)
        if polls_settings:
            self._settings_at = now + self._control_interval
            self._controller.on_poll(found.settings)
            if self.on_periodic is not None:
                self.on_periodic(found.periodic)
        return found.due_in
