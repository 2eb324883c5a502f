"""`InWorker`: what a job and its worker tell each other while it runs."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from oban import error_texts, redaction
from oban.job_log import JobLogger
from oban.progress import Progress, check
from oban.secret_values import Secrets
from oban.types import JobState


class RunStatus(Protocol):
    """What an executing job can ask about its own run, and report to it."""

    @property
    def cancelled(self) -> bool: ...

    @property
    def progress(self) -> Progress | None: ...

    @property
    def secrets(self) -> Secrets | None: ...

    def set_progress(self, done: float, total: float | None, message: str | None) -> None: ...

    def add_line(self, level: int, make_text: Callable[[], str]) -> None: ...


class InWorker:
    """Base of `Job`, with the methods that are about the run of the job."""

    if TYPE_CHECKING:
        state: JobState
        meta: Any
        attempted_at: Any

        @property
        def _known_id(self) -> int | None: ...

    #: Set on the instance that a worker gets, while it runs.
    _run: ClassVar[RunStatus | None] = None

    def cancelled(self) -> bool:
        """Return whether the job was cancelled or, in a worker, whether the attempt should stop.

        In a worker it becomes true within `watch_interval` (1 second) after the job is cancelled on any node,
        deleted, rescued, or retried after a cancel. It also becomes true when the attempt exceeds its timeout
        in a thread, and when the node's grace period ends. Elsewhere, and for a copy of the job, it is true
        if `state` is `cancelled`; the database is not asked.
        """
        if self._run is not None:
            return self._run.cancelled
        return self.state == JobState.CANCELLED

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Report how far the job has come, from its worker, in any thread.

        The call neither waits nor fails for a reason that the worker cannot know. The node stores the last
        progress at most once per `progress_interval` (1 second), and with the outcome of the attempt, in
        `meta["progress"]`. `last_progress` returns it. A job that no worker runs reports nothing.

        Args:
            done: How much is done: a number that is not negative, in a unit of your own.
            total: How much there is to do (default: unknown). An estimate that is too low does no harm.
            message: What the worker does now. It is cut after 500 characters (default: none).

        Raises:
            InvalidJob: An argument has a wrong type, or a number is negative or not finite.

        Example:
            `job.progress(3, 10, "reading")`
        """
        run = self._run
        # Before the message is cut, because a part of a value would not be found.
        if run is not None and run.secrets is not None and isinstance(message, str):
            message = run.secrets.text(str.__str__(message))
        checked = check(done, total, message)
        if run is not None:
            run.set_progress(*checked)

    @property
    def last_progress(self) -> Progress | None:
        """The progress that the job has reported last, in any attempt; None without any.

        In a worker, it is what this attempt has reported, or before that, what an earlier one has. Elsewhere,
        it is what the row had when it was loaded.
        """
        if self._run is not None and (reported := self._run.progress) is not None:
            return reported
        meta = self.meta
        return Progress.parse(meta.get("progress")) if isinstance(meta, dict) else None

    @property
    def current_progress(self) -> Progress | None:
        """The progress that the last attempt to start has reported; None if that has reported none."""
        reported, attempted_at = self.last_progress, self.attempted_at
        if reported is None or attempted_at is None or reported.at < attempted_at:
            return None
        return reported

    @property
    def log(self) -> JobLogger:
        """A logger for the job, on the logger `oban.job`, whose last lines are kept with the attempt.

        Records have the fields `job_id`, `worker`, `queue` and `attempt`. Of each attempt, the last 100 lines
        (the option `log_lines`) are kept, up to 16 KB: those of the level INFO and above, and others that the
        logger is enabled for. `list_attempts` returns them. If no worker runs the job, lines are only logged.
        """
        # Only what is loaded: the instance may be expired, and a query here would be a surprise.
        values = self.__dict__
        names = {key: error_texts.log_safe(values.get(key)) for key in ("worker", "queue")}
        extra = {"job_id": self._known_id, **names, "attempt": values.get("attempt")}
        if self._run is None:
            return JobLogger(extra, None, redaction.secrets(self))
        return JobLogger(extra, self._run.add_line, self._run.secrets)
