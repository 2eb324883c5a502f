"""`Report`: the progress of a run and the last lines of its log, until they are stored with its outcome."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from oban import clock, error_texts, forks
from oban.models import Job
from oban.progress import Progress
from oban.repository.acknowledge import Ack
from oban.telemetry import Telemetry

if TYPE_CHECKING:
    from oban.runner.execution.run import Run

#: The longest line, and all lines of an attempt, in bytes of JSON.
MAX_LINE = 8192
MAX_LOG = 16_384
DEFAULT_LINES = 100


def _ignore(run: "Run") -> None:
    pass


@dataclass(frozen=True, slots=True)
class Reporting:
    """What the runs of a node do with their reports.

    `on_progress` is called with a run that has reported progress, in any thread. `telemetry` is that of the
    client.
    """

    max_lines: int = DEFAULT_LINES
    on_progress: "Callable[[Run], None]" = _ignore
    telemetry: Telemetry = field(default_factory=Telemetry)


class Report:
    """What a run reports. Its methods can be called from any thread, and never wait.

    Args:
        job: The job as it was fetched.
        max_lines: How many lines of its log are kept.
        started_at: When the run started, by the monotonic clock.
    """

    __slots__ = (
        "_attempt",
        "_base",
        "_bytes",
        "_lines",
        "_lock",
        "_max_lines",
        "_since",
        "is_noted",
        "progress",
    )

    def __init__(self, job: Job, max_lines: int, started_at: float | None) -> None:
        values = job.__dict__
        attempted_at = values.get("attempted_at")
        # Times by the clock of the database, so that those of an attempt are never before its start.
        self._base = attempted_at if isinstance(attempted_at, datetime) else clock.now()
        self._since = clock.monotonic() if started_at is None else started_at
        self._attempt: int = values["attempt"]
        self._max_lines = max_lines
        self._lines: deque[tuple[int, dict[str, Any]]] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        #: The last progress.
        self.progress: Progress | None = None
        #: Whether the node knows that there is progress to store.
        self.is_noted = False

    def now(self) -> datetime:
        elapsed = timedelta(seconds=max(0.0, clock.monotonic() - self._since))
        return self._base + elapsed

    def set_progress(self, done: float, total: float | None, message: str | None) -> None:
        """Replace the progress by checked values."""
        self.progress = Progress(
            done=done, total=total, message=message, attempt=self._attempt, at=self.now()
        )

    def receive_progress(self, document: object) -> None:
        """Replace the progress by what another process reports. Raises `ValueError` for anything else."""
        if (progress := Progress.parse(document)) is None:
            raise ValueError("not a progress")
        self.progress = replace(progress, attempt=self._attempt)

    def add_line(self, level: int, make_text: Callable[[], str]) -> None:
        """Keep a line of the log, and drop the oldest ones that are too many."""
        # A forked child may have inherited the lock while another thread had it.
        if self._max_lines and not forks.is_child:
            line = {
                "at": self.now().isoformat(),
                "level": error_texts.log_safe(logging.getLevelName(level)),
                "text": error_texts.sanitize(make_text(), MAX_LINE),
            }
            self.extend([line])

    def extend(self, lines: Iterable[dict[str, Any]]) -> None:
        """Keep lines that `add_line` has made."""
        with self._lock:
            for line in lines:
                size = len(orjson.dumps(line)) + 1
                self._lines.append((size, line))
                self._bytes += size
            while len(self._lines) > self._max_lines or self._bytes > MAX_LOG:
                self._bytes -= self._lines.popleft()[0]

    def take_lines(self) -> list[dict[str, Any]]:
        """Remove and return the lines."""
        with self._lock:
            taken = [line for _, line in self._lines]
            self._lines.clear()
            self._bytes = 0
        return taken

    def add_to(self, ack: Ack) -> Ack:
        """An outcome with what was reported."""
        with self._lock:
            lines = [line for _, line in self._lines]
        return ack._replace(
            progress=None if self.progress is None else self.progress.document(),
            log=orjson.dumps(lines).decode() if lines else None,
        )


def checked_line(line: dict[str, Any]) -> dict[str, Any]:
    """A line from another process, as `Report.add_line` makes it. Raises an error for anything else."""
    datetime.fromisoformat(line["at"])
    level, text = error_texts.log_safe(line["level"]), error_texts.sanitize(line["text"], MAX_LINE)
    return {"at": line["at"], "level": level, "text": text}
