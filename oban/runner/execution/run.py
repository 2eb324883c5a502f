"""`Run`: one execution of a job on this node, from its fetch to its outcome."""

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from oban import error_texts, forks
from oban.models import Job
from oban.progress import Progress
from oban.repository.acknowledge import Ack
from oban.repository.runs import RunKey
from oban.runner.execution.report import Report, Reporting, checked_line
from oban.secret_values import Secrets
from oban.telemetry import JobView


class _EndedRun(NamedTuple):
    """What a job asks once its run has ended, to which nothing can be reported any more."""

    cancelled: bool
    secrets: Secrets | None = None

    @property
    def progress(self) -> None:
        return None

    def set_progress(self, done: float, total: float | None, message: str | None) -> None:
        pass

    def add_line(self, level: int, make_text: Callable[[], str]) -> None:
        pass


_ENDED = (_EndedRun(False), _EndedRun(True))
_REPORTING = Reporting()
_creating = threading.Lock()


class Run:
    """One execution of a job on this node.

    Args:
        job: The job as it was fetched.
        owner: The uuid of the producer that fetched it.
        node: The name of this node.
        sure_until: Until when, by `clock.boottime`, no other node can have rescued the job.
        confirm: Asks after that whether the run still has its job.
        reporting: What becomes of the progress and the log of the job.
    """

    __slots__ = (
        *("_cancelled", "confirm", "error", "is_isolated", "is_logged", "job", "key", "max_attempts"),
        *("node", "on_cancel", "queue", "releasing", "report", "reporting", "result", "secrets"),
        *("snoozed", "started_at", "sure_until", "task", "timed_out", "view", "worker"),
    )

    def __init__(
        self,
        job: Job,
        owner: str,
        node: str,
        sure_until: float = math.inf,
        confirm: "Callable[[Run], Awaitable[bool]] | None" = None,
        reporting: Reporting = _REPORTING,
    ) -> None:
        self.job = job
        self.node = node
        self.sure_until = sure_until
        self.confirm = confirm
        #: Where its progress and its log lines go, and the handlers of its events.
        self.reporting = reporting
        #: What the job has reported, if anything.
        self.report: Report | None = None
        # All that is needed later is read here, because the worker can change the instance, and an update
        # can load a later attempt into it. It is read from the dict because mapped attributes are slow.
        values = job.__dict__
        #: The run in the database: its outcome counts only while the row still has this attempt and owner.
        self.key: RunKey = (values["id"], values["attempt"], owner)
        #: The name of the worker.
        self.worker: str = values["worker"]
        self.queue: str = values["queue"]
        self.max_attempts: int = values["max_attempts"]
        meta = values["meta"]
        self.snoozed = meta.get("snoozed") if isinstance(meta, dict) else None
        self._cancelled = False
        #: Called when `cancelled` becomes true, in the thread that sets it.
        self.on_cancel: Callable[[], None] | None = None
        #: Whether the node stops. If so, a job whose task is cancelled is put back.
        self.releasing = False
        #: The timeout in seconds, once the job has exceeded it.
        self.timed_out: float | None = None
        #: When the job started, by the monotonic clock.
        self.started_at: float | None = None
        #: Whether the log has a record of how the run ended.
        self.is_logged = False
        #: Whether its session has begun a transaction that would not see changes of the row.
        self.is_isolated = False
        #: What `process` has returned, if it is not None, or the exception that the run has failed with.
        self.result: Any = None
        self.error: BaseException | None = None
        self.task: asyncio.Task[Any] | None = None
        #: The redacted values of the job, as they were when it started.
        self.secrets: Secrets | None = None
        #: The job as events about the run show it; None before the first event.
        self.view: JobView | None = None
        values["_run"] = self

    @property
    def cancelled(self) -> bool:
        """What `job.cancelled()` returns: whether the run should stop.

        True once the row no longer belongs to the run, the timeout has passed, or the node stops.
        """
        return self._cancelled

    @cancelled.setter
    def cancelled(self, value: bool) -> None:
        self._cancelled = value
        if value and self.on_cancel is not None:
            self.on_cancel()

    @property
    def is_lost(self) -> bool:
        """Whether the run was told that its row no longer belongs to it."""
        return self._cancelled and self.timed_out is None and not self.releasing

    @property
    def has_ended(self) -> bool:
        """Whether `end` was called."""
        return self.job.__dict__.get("_run") is not self

    @property
    def max_lines(self) -> int:
        """How many lines of the job's log are kept."""
        return self.reporting.max_lines

    @property
    def is_last(self) -> bool:
        """Whether the job has no attempt left after this one."""
        # SQLite stores anything that another program writes.
        return isinstance(self.max_attempts, int) and self.key[1] >= self.max_attempts

    @property
    def progress(self) -> Progress | None:
        """The last progress that the job has reported."""
        return None if self.report is None else self.report.progress

    def set_progress(self, done: float, total: float | None, message: str | None) -> None:
        """Take over what `job.progress(…)` was called with, in any thread."""
        # A forked child has copies of locks that other threads may have had.
        if forks.is_child:
            return
        self.begin_report().set_progress(done, total, message)
        self.reporting.on_progress(self)

    def add_line(self, level: int, make_text: Callable[[], str]) -> None:
        """Keep a line of the job's log, in any thread."""
        if self.max_lines and not forks.is_child:
            self.begin_report().add_line(level, make_text)

    def receive(self, progress: object, lines: list[dict[str, Any]]) -> None:
        """Take over what a child process has sent. Raises an error for a message that a job has made up."""
        report = self.begin_report()
        report.extend(checked_line(line) for line in lines)
        if progress is not None:
            report.receive_progress(progress)
            self.reporting.on_progress(self)

    def begin_report(self) -> Report:
        """Return the report, which is made when it is first needed."""
        if self.report is None:
            with _creating:
                self.report = self.report or Report(self.job, self.max_lines, self.started_at)
        return self.report

    def ack(self, outcome: str, **fields: Any) -> Ack:
        """Make the outcome of the run, with what the job has reported, and without redacted values."""
        if self.secrets is not None and (error := fields.get("error")) is not None:
            fields["error"] = error_texts.sanitize(self.secrets.text(error))
        trace = None if self.view is None else self.view.trace
        ack = Ack(*self.key, outcome, trace=trace, **fields)
        if self.report is None:
            return ack
        if outcome == "completed" and self.is_lost:
            # The outcome changes nothing. Only those of other kinds look for the attempt of a job that was
            # cancelled, to add the report to it.
            ack = ack._replace(outcome="cancelled")
        return self.report.add_to(ack)

    def time_out(self, timeout: float) -> None:
        """Tell the job that its timeout has passed."""
        self.timed_out = timeout
        self.cancelled = True

    def timeout_error(self, timeout: float) -> TimeoutError:
        """The error of a run that has exceeded its timeout."""
        return TimeoutError(f"{self.worker} timed out after {timeout:g} s")

    def release(self) -> None:
        """Interrupt the job because the node stops. It is put back."""
        self.cancelled = self.releasing = True
        if self.task is not None:
            self.task.cancel()

    def end(self) -> None:
        """Break the reference cycles with the job and the task, so that no garbage collection is needed."""
        ended = _ENDED[self.cancelled] if self.secrets is None else _EndedRun(self.cancelled, self.secrets)
        self.job.__dict__["_run"] = ended
        self.task = self.on_cancel = self.result = self.error = None
