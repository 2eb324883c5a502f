"""The tables of periodic jobs: the entries, and the ticks for which jobs were inserted."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Double, Index, PrimaryKeyConstraint, Text, false
from sqlalchemy.orm import Mapped, mapped_column

from oban.models.base import Base
from oban.types import JSONDocument, OptionalDocument, UTCDateTime


class PeriodicEntry(Base):
    """One row of `oban_periodic`: an entry of the instance `name`, and what operators have changed about it.

    `declared` is the entry as the code, or `add_periodic`, declares it, and the keys of `override` replace
    some of its keys.

    Attributes:
        name: The name of the instance.
        entry: The name of the entry.
        declared: The entry as it was declared: expression, time zone, and the fields of its jobs.
        override: What `update_periodic` has changed; None without changes.
        source: "code", or "runtime" for an entry of `add_periodic`.
        paused: Whether it inserts no jobs.
        declared_at: The start of the node that declared it.
        seen_at: The last time that a running node has declared it.
        lease: That node's lease in seconds, after which the entry counts as gone.
        last_tick: The last time that was handled. It and earlier times insert no job again.
        updated_at: When the row was changed last.
    """

    __tablename__ = "oban_periodic"
    __table_args__: Any = (PrimaryKeyConstraint("name", "entry", name="oban_periodic_pkey"),)

    name: Mapped[str] = mapped_column(Text)
    entry: Mapped[str] = mapped_column(Text)
    declared: Mapped[dict[str, Any]] = mapped_column(JSONDocument)
    override: Mapped[dict[str, Any] | None] = mapped_column(OptionalDocument)
    source: Mapped[str] = mapped_column(Text)
    paused: Mapped[bool] = mapped_column(Boolean, server_default=false())
    declared_at: Mapped[datetime] = mapped_column(UTCDateTime)
    seen_at: Mapped[datetime] = mapped_column(UTCDateTime)
    lease: Mapped[float | None] = mapped_column(Double)
    last_tick: Mapped[datetime | None] = mapped_column(UTCDateTime)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime)


class Tick(Base):
    """One row of `oban_ticks`: a time at which an entry was due, and the job that was inserted for it.

    Because of the primary key, each tick of an entry inserts only one job, however many nodes try.

    Attributes:
        name: The name of the instance.
        entry: The name of the entry.
        tick: The time at which the entry was due.
        job_id: The id of the job that was inserted, or of the unique job that was in the way.
        inserted_at: When the row was stored.
    """

    __tablename__ = "oban_ticks"
    __table_args__: Any = (
        PrimaryKeyConstraint("name", "entry", "tick", name="oban_ticks_pkey"),
        Index("oban_ticks_tick_index", "tick", info={"purpose": "Finds old ticks to delete."}),
    )

    name: Mapped[str] = mapped_column(Text)
    entry: Mapped[str] = mapped_column(Text)
    tick: Mapped[datetime] = mapped_column(UTCDateTime)
    job_id: Mapped[int | None] = mapped_column(BigInteger)
    inserted_at: Mapped[datetime] = mapped_column(UTCDateTime)
