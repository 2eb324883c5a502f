"""The tables about nodes: who leads, which queues they run, and the settings of queues."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, Dialect, Integer, PrimaryKeyConstraint, Text, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from oban.models.base import Base
from oban.types import UTC_NOW, JSONDocument, UTCDateTime


class _ProducerId(Uuid[UUID]):
    """A UUID. What is none, which SQLite can store, is read as zero: one row must not hide all nodes."""

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        decode: Any = super().result_processor(dialect, coltype)  # type: ignore[no-untyped-call]
        if decode is None:
            return None

        def read(value: Any) -> UUID | None:
            try:
                found: UUID | None = decode(value)
            except (ValueError, TypeError, AttributeError):
                return UUID(int=0)
            return found

        return read


class Leader(Base):
    """One row of `oban_leaders`: the node that leads the instance `name`, and when its lease ends.

    Attributes:
        name: The name of the instance.
        node: The name of the node that leads.
        elected_at: When it became the leader.
        expires_at: When its lease ends if it is not renewed. After that, any node can become the leader.
    """

    __tablename__ = "oban_leaders"
    __table_args__: Any = (PrimaryKeyConstraint("name", name="oban_leaders_pkey"),)

    name: Mapped[str] = mapped_column(Text)
    node: Mapped[str] = mapped_column(Text)
    elected_at: Mapped[datetime] = mapped_column(UTCDateTime)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime)


class Producer(Base):
    """One row of `oban_producers`: a queue that a node runs.

    A row that is older than the node's lease is that of a dead node, whose executing jobs are rescued.

    Attributes:
        uuid: Identifies this start of the queue on the node; the second item of `attempted_by` of its jobs.
        name: The name of the instance.
        node: The name of the node.
        queue: The name of the queue.
        meta: What the node reports about itself: its limit, whether it is paused, the ids of the jobs that it
            runs, its lease, versions, workers and how it hears of changes.
        started_at: When the node began to run the queue.
        updated_at: The time of the last heartbeat.
    """

    __tablename__ = "oban_producers"
    __table_args__: Any = (PrimaryKeyConstraint("uuid", name="oban_producers_pkey"),)

    uuid: Mapped[UUID] = mapped_column(_ProducerId)
    name: Mapped[str] = mapped_column(Text)
    node: Mapped[str] = mapped_column(Text)
    queue: Mapped[str] = mapped_column(Text)
    meta: Mapped[dict[str, Any]] = mapped_column(JSONDocument, server_default=text("'{}'"))
    started_at: Mapped[datetime] = mapped_column(UTCDateTime, server_default=UTC_NOW)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime, server_default=UTC_NOW)


class Queue(Base):
    """One row of `oban_queues`: the settings of a queue of the instance `name`.

    `queue` is `*` for the settings of all queues, and `node` is empty for those of all nodes. NULL means that
    a setting is not set, and a limit of 0 that the configured limit applies.

    Attributes:
        name: The name of the instance.
        queue: The name of the queue; `*` for all queues.
        node: The name of the node; empty for all nodes.
        running: Whether `start_queue` or `stop_queue` was the last command.
        limit: The limit that `start_queue` or `scale_queue` has set.
        paused: Whether `pause_queue` or `resume_queue` was the last command.
        updated_at: When the last command was stored; for each setting, the newest row counts.
    """

    __tablename__ = "oban_queues"
    __table_args__: Any = (PrimaryKeyConstraint("name", "queue", "node", name="oban_queues_pkey"),)

    name: Mapped[str] = mapped_column(Text)
    queue: Mapped[str] = mapped_column(Text)
    node: Mapped[str] = mapped_column(Text, server_default=text("''"))
    running: Mapped[bool | None] = mapped_column(Boolean)
    limit: Mapped[int | None] = mapped_column(Integer)
    paused: Mapped[bool | None] = mapped_column(Boolean)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime, server_default=UTC_NOW)
