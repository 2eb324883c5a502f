"""One run of a job in a child process, and what the job reports to the node."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from oban import forks
from oban.models import Job
from oban.progress import Progress
from oban.runner.execution.report import Report
from oban.secret_values import Secrets

#: Seconds between two messages with what a job reports.
REPORT_INTERVAL = 0.05


class Reporter:
    """Sends what jobs report to the node, in a thread, so that a job never waits for that."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        self._send = send
        #: Held while a message is sent, so that none arrives after the outcome.
        self._sending = threading.Lock()
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None
        self._run: ChildRun | None = None

    def begin(self, run: "ChildRun | None") -> None:
        """Send the reports of this run from now on."""
        with self._sending:
            self._run = run

    def note(self, run: "ChildRun") -> None:
        """Send what a run reports soon. A thread that its job has left behind can report nothing."""
        if run is not self._run:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="oban-report", daemon=True)
            self._thread.start()
        self._changed.set()

    def _serve(self) -> None:
        while True:
            self._changed.wait()
            with contextlib.suppress(OSError):
                self.send()
            time.sleep(REPORT_INTERVAL)

    def send(self) -> None:
        """Send what the run has reported since the last message."""
        with self._sending:
            self._changed.clear()
            if (run := self._run) is not None and (message := run.take_report()) is not None:
                self._send(message)


class ChildRun:
    """What the node requested, what `job.cancelled()` returns, and what the job reports."""

    def __init__(self, request: dict[str, Any], reporter: Reporter) -> None:
        self.request = request
        self.cancelled = False
        #: The redacted values of the job.
        self.secrets: Secrets | None = None
        self._reporter = reporter
        self._report: Report | None = None
        self._sent: Progress | None = None

    def begin(self, job: Job) -> None:
        """Let the job, which was just loaded, report to this run."""
        self._report = Report(job, self.request["max_lines"], self.request["started_at"])
        self._reporter.begin(self)
        job.__dict__["_run"] = self

    @property
    def progress(self) -> Progress | None:
        return None if self._report is None else self._report.progress

    def set_progress(self, done: float, total: float | None, message: str | None) -> None:
        # A child that the job has forked has the connection to the node as well.
        if self._report is not None and not forks.is_child:
            self._report.set_progress(done, total, message)
            self._reporter.note(self)

    def add_line(self, level: int, make_text: Callable[[], str]) -> None:
        if self._report is not None and self.request["max_lines"] and not forks.is_child:
            self._report.add_line(level, make_text)
            self._reporter.note(self)

    def take_report(self) -> dict[str, Any] | None:
        """The message about what was not sent yet; None if that is nothing."""
        if self._report is None:
            return None
        lines, progress = self._report.take_lines(), self._report.progress
        changed = None if progress is None or progress is self._sent else progress
        if not (lines or changed):
            return None
        self._sent = progress
        document = None if changed is None else changed.as_dict()
        return {"number": self.request["number"], "progress": document, "lines": lines}
