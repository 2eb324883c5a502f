"""`JobView`: a job as events show it."""

from datetime import datetime
from types import SimpleNamespace
from typing import Any

from oban import redaction
from oban.models import Job
from oban.telemetry.tracing import Tracing

#: The attributes that are copied from the job.
_COLUMNS = (
    *("id", "worker", "queue", "attempt", "max_attempts", "priority"),
    *("inserted_at", "scheduled_at", "attempted_at"),
)


class JobView:
    """A job as an event shows it, with the redacted fields of `args` and `meta` replaced.

    It can be compared and pickled.

    Attributes:
        id, worker, queue, attempt, max_attempts, priority, tags: As those of `Job`.
        inserted_at, scheduled_at, attempted_at: As those of `Job`.
        args: The args, redacted. Each access makes a copy.
        meta: The meta, redacted. Each access makes a copy.
        trace: The id of the OpenTelemetry trace that the attempt belongs to, 32 hexadecimal digits; None
            without one, and for a trace that is not sampled.
    """

    __slots__ = ("_args", "_meta", *_COLUMNS, "tags", "trace", "tracing")

    id: int
    worker: str
    queue: str
    attempt: int
    max_attempts: int
    priority: int
    inserted_at: datetime
    scheduled_at: datetime
    attempted_at: datetime | None

    def __init__(self, job: Job) -> None:
        # Read from the dict, because a worker can change the instance, and mapped attributes are slow. A
        # session that expires the instance empties the dict.
        values = job.__dict__
        get = values.get
        self.id, self.worker, self.queue = get("id"), get("worker"), get("queue")  # type: ignore[assignment]
        self.attempt, self.max_attempts = get("attempt"), get("max_attempts")  # type: ignore[assignment]
        self.priority, self.inserted_at = get("priority"), get("inserted_at")  # type: ignore[assignment]
        self.scheduled_at, self.attempted_at = get("scheduled_at"), get("attempted_at")  # type: ignore[assignment]
        # SQLite stores anything that another program writes.
        tags = get("tags")
        self.tags: tuple[str, ...] = tuple(tags) if isinstance(tags, list) else ()
        # As they are stored: propagators of contexts read the meta, which can be anything.
        self._args, self._meta = get("args"), get("meta")
        self.trace: str | None = None
        #: The span that `oban.otel` has started for the attempt, until it ends.
        self.tracing: Tracing | None = None

    @property
    def args(self) -> dict[str, Any]:
        return redaction.args(self._document())

    @property
    def meta(self) -> dict[str, Any]:
        return redaction.meta(self._document())

    def redacted(self, text: str) -> str:
        """Return a text about the job with the values of its redacted fields replaced."""
        return redaction.text(self._document(), text)

    def _document(self) -> Any:
        return SimpleNamespace(worker=self.worker, args=self._args, meta=self._meta)

    def _values(self) -> dict[str, Any]:
        shown = {name: getattr(self, name) for name in _COLUMNS}
        return {**shown, "tags": self.tags, "_args": self.args, "_meta": self.meta, "trace": self.trace}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobView) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((self.id, self.attempt))

    def __reduce__(self) -> tuple[Any, ...]:
        # Only redacted values leave the process.
        return _restore, (self._values(),)

    def __repr__(self) -> str:
        return f"JobView(id={self.id}, queue={self.queue}, worker={self.worker}, attempt={self.attempt})"


def _restore(values: dict[str, Any]) -> JobView:
    view = JobView.__new__(JobView)
    for name, value in values.items():
        setattr(view, name, value)
    view.tracing = None
    return view
