"""`JobView`: what an event shows of a job."""

from datetime import datetime
from typing import Any

from oban import redaction
from oban.models import Job


class JobView:
    """A job as an event shows it, with the redacted fields of `args` and `meta` replaced.

    Attributes:
        id, worker, queue, attempt, max_attempts, priority, tags: As those of `Job`.
        inserted_at, scheduled_at, attempted_at: As those of `Job`.
        args: The args, redacted. Each access makes a copy.
        meta: The meta, redacted. Each access makes a copy.
    """

    __slots__ = (
        *("_job", "attempt", "attempted_at", "id", "inserted_at", "max_attempts", "priority", "queue"),
        *("scheduled_at", "tags", "worker"),
    )

    def __init__(self, job: Job) -> None:
        # Read from the dict, because a worker can change the instance, and mapped attributes are slow.
        values = job.__dict__
        self._job = job
        self.id: int = values["id"]
        self.worker: str = values["worker"]
        self.queue: str = values["queue"]
        self.attempt: int = values["attempt"]
        self.max_attempts: int = values["max_attempts"]
        self.priority: int = values["priority"]
        self.tags: tuple[str, ...] = tuple(values["tags"])
        self.inserted_at: datetime = values["inserted_at"]
        self.scheduled_at: datetime = values["scheduled_at"]
        self.attempted_at: datetime | None = values["attempted_at"]

    @property
    def args(self) -> dict[str, Any]:
        return redaction.args(self._job)

    @property
    def meta(self) -> dict[str, Any]:
        return redaction.meta(self._job)

    def __repr__(self) -> str:
        return f"JobView(id={self.id}, queue={self.queue}, worker={self.worker}, attempt={self.attempt})"
