"""The history of jobs: the attempts that have ended."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, SmallInteger, Text
from sqlalchemy.orm import Mapped, mapped_column

from oban import ddl
from oban.models.base import Base
from oban.types import OptionalDocument, UTCDateTime


class Attempt(Base):
    """One row of `oban_attempts`: an attempt of a job, stored when it ended.

    The table has no primary key, which would cost every attempt more than its row does. An attempt that is
    snoozed or released does not count, so that there can be several rows of a job with the same `attempt`.
    Rows are deleted with their job, but not by a foreign key.

    Attributes:
        job_id: The id of the job.
        attempt: The number of the attempt.
        outcome: How it ended: "completed", "failed", "cancelled", "snoozed", "discarded", "released" or
            "rescued".
        node: The node that ran it; None if the row of the job named none.
        producer: The uuid of the node's producer.
        started_at: When it started; None if the row of the job does not say.
        ended_at: When it ended.
        error: The text that the attempt has added to the job's `errors`.
        log: The last lines of the attempt's log, each with the keys `at`, `level` and `text`.
        progress: The last progress that the attempt reported.
        trace: The id of the trace that the attempt belongs to: 32 hexadecimal digits.
    """

    __tablename__ = "oban_attempts"
    __table_args__: Any = (
        Index(
            "oban_attempts_job_id_index",
            "job_id",
            postgresql_using="brin",
            postgresql_with={"pages_per_range": 8},
            postgresql_ops={"job_id": "int8_minmax_multi_ops"},
            info={
                "purpose": "Finds the attempts of a job. Rows are stored roughly in the order of the ids,"
                " so BRIN is enough on PostgreSQL, and costs an insert almost nothing."
            },
        ),
    )
    # What tells instances apart in a session.
    __mapper_args__: Any = {"primary_key": ("job_id", "attempt", "ended_at")}  # noqa: RUF012

    job_id: Mapped[int] = mapped_column(BigInteger)
    attempt: Mapped[int] = mapped_column(SmallInteger)
    outcome: Mapped[str] = mapped_column(Text)
    node: Mapped[str | None] = mapped_column(Text)
    producer: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    ended_at: Mapped[datetime] = mapped_column(UTCDateTime)
    error: Mapped[str | None] = mapped_column(Text)
    log: Mapped[list[dict[str, Any]] | None] = mapped_column(OptionalDocument)
    progress: Mapped[dict[str, Any] | None] = mapped_column(OptionalDocument)
    trace: Mapped[str | None] = mapped_column(Text)


ddl.attach_to_attempts(Attempt.__table__)
