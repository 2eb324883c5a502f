"""The tables as declarative models: `Job`, `Leader`, `Producer`, `Queue`."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Protocol, Unpack, cast
from uuid import UUID

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    event,
    literal_column,
    text,
)
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import DeclarativeBase, Mapped, make_transient, mapped_column, validates
from sqlalchemy.orm.attributes import manager_of_class

from oban import clock, compat, ddl, fields
from oban.errors import InvalidJob
from oban.fields import JobFields
from oban.types import (
    STATES,
    BigKey,
    JobState,
    JSONDocument,
    StateType,
    TextList,
    UTCDateTime,
    empty_list,
    utc_now,
)

#: What a new job holds before it gets its own values, beside lists and dicts.
_NEW = {"queue": "default", "attempt": 0, "max_attempts": 20, "priority": 0}


class Base(DeclarativeBase):
    """Base of Oban's own models, with a `metadata` of its own."""

    metadata: ClassVar[MetaData] = MetaData()


#: What an application adds to its Alembic `target_metadata` to keep the tables in one history.
metadata: MetaData = Base.metadata


class Run(Protocol):
    """What a job knows about its own execution while it runs."""

    @property
    def cancelled(self) -> bool: ...


def _state_for_time(context: DefaultExecutionContext) -> JobState:
    """The state of a row whose INSERT names none: one that is not due yet is not available."""
    given = context.get_current_parameters(False)  # type: ignore[no-untyped-call]
    # Of `insert(Job).values([…])`, one parameter for each row, the first of which is the column's own.
    column = context.current_column
    row = column.index + 1 if hasattr(column, "original") else 0
    at = given.get(f"scheduled_at_m{row}", given.get("scheduled_at"))
    if isinstance(at, datetime):
        later = at.replace(tzinfo=at.tzinfo or UTC) > clock.now()
    else:
        # An expression, whose value only the database knows: the stager looks when it is due.
        columns = compat.named_columns(getattr(context.compiled, "statement", None))
        later = any(getattr(column, "key", column) == "scheduled_at" for column in columns)
    return JobState.SCHEDULED if later else JobState.AVAILABLE


class Job(Base):
    """One row of `oban_jobs`: a unit of work, from being enqueued until it is pruned.

    `Job(worker=…, args=…, queue=…, priority=…, max_attempts=…, tags=…, meta=…, scheduled_at=…)` or
    `schedule_in=` (seconds or a timedelta) instead of `scheduled_at`. All values are checked and
    copied; raises `InvalidJob`. Usually `MyWorker.new(…)` makes it.
    """

    __tablename__ = "oban_jobs"
    __table_args__: Any = (
        PrimaryKeyConstraint("id", name="oban_jobs_pkey"),
        CheckConstraint("attempt >= 0 AND attempt <= max_attempts", name="attempt_range"),
        CheckConstraint("max_attempts > 0", name="positive_max_attempts"),
        CheckConstraint("priority >= 0 AND priority <= 9", name="priority_range"),
        CheckConstraint("length(queue) > 0", name="queue_length"),
        CheckConstraint("length(worker) > 0", name="worker_length"),
        CheckConstraint("state IN ('" + "', '".join(STATES) + "')", name="known_state").ddl_if(
            dialect="sqlite"
        ),
        Index(
            "oban_jobs_state_queue_priority_scheduled_at_id_index",
            *("state", "queue", "priority", "scheduled_at", "id"),
        ),
        Index(
            "oban_jobs_staging_index",
            *("scheduled_at", "id"),
            postgresql_where=literal_column("state IN ('scheduled', 'retryable')"),
            sqlite_where=literal_column("state IN ('scheduled', 'retryable')"),
        ),
        *(
            Index(
                f"oban_jobs_{state}_at_index",
                f"{state}_at",
                postgresql_where=literal_column(f"state = '{state}'"),
                sqlite_where=literal_column(f"state = '{state}'"),
            )
            for state in ("completed", "cancelled", "discarded")
        ),
        Index(
            "oban_jobs_exhausted_index",
            "id",
            postgresql_where=literal_column("state = 'available' AND attempt >= max_attempts"),
            sqlite_where=literal_column("state = 'available' AND attempt >= max_attempts"),
        ),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigKey, Identity())
    state: Mapped[JobState] = mapped_column(
        StateType, insert_default=_state_for_time, server_default=text("'available'")
    )
    queue: Mapped[str] = mapped_column(Text, server_default=text("'default'"))
    worker: Mapped[str] = mapped_column(Text)
    attempt: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    max_attempts: Mapped[int] = mapped_column(SmallInteger, server_default=text("20"))
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    args: Mapped[dict[str, Any]] = mapped_column(JSONDocument, server_default=text("'{}'"))
    meta: Mapped[dict[str, Any]] = mapped_column(JSONDocument, server_default=text("'{}'"))
    tags: Mapped[list[str]] = mapped_column(TextList, server_default=empty_list())
    errors: Mapped[list[dict[str, Any]]] = mapped_column(JSONDocument, server_default=text("'[]'"))
    attempted_by: Mapped[list[str]] = mapped_column(TextList, server_default=empty_list())
    inserted_at: Mapped[datetime] = mapped_column(UTCDateTime, server_default=utc_now())
    scheduled_at: Mapped[datetime] = mapped_column(UTCDateTime, server_default=utc_now())
    attempted_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    cancelled_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    discarded_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    #: Set on the instance that a worker gets, as long as it runs.
    _run: ClassVar[Run | None] = None
    #: Seconds of `schedule_in`, so that the database's clock decides rather than this machine's.
    _schedule_in: ClassVar[float | None] = None

    def __init__(self, **values: Unpack[JobFields]) -> None:
        if "worker" not in values:
            raise InvalidJob("worker", "is missing")
        self._fill(fields.check(values))

    @classmethod
    def _blank(cls) -> "Job":
        """An instance without any values, made without `__init__`."""
        blank: Job = manager_of_class(cls).new_instance()
        return blank

    @classmethod
    def _from_checked(cls, checked: dict[str, Any]) -> "Job":
        """A job of values that `oban.fields` has checked; takes the dict over without copying it."""
        job = cls._blank()
        job._fill(checked)
        return job

    @classmethod
    def _from_row(cls, row: Iterable[Any]) -> "Job":
        """The detached job of a row that has all columns, in the order of the table.

        It is what loading the row through a session would give, at a third of the cost.
        """
        job = cls._blank()
        job.__dict__.update(zip(_KEYS, row, strict=True))
        job._mark_persistent()
        return job

    @property
    def _is_persistent(self) -> bool:
        """Whether the instance shows a row, rather than a job that has not been enqueued yet."""
        state = self.__dict__.get("_sa_instance_state")
        # Without a state (see `oban.database.fast.late_state`), the job has never been in a session.
        return self.__dict__.get("id") is not None if state is None else state.key is not None

    def _mark_persistent(self) -> None:
        """Make the instance a detached one that is stored under its id."""
        if (state := self.__dict__.get("_sa_instance_state")) is not None:
            compat.set_identity(state, identity_key(self.__dict__["id"]))

    def _restore_on_rollback(self) -> Callable[[], None]:
        """A function that makes this instance again what it is now: a new job that was never enqueued."""
        before = {key: value for key, value in self.__dict__.items() if key != "_sa_instance_state"}

        def restore() -> None:
            make_transient(self)
            for key in _KEYS:
                self.__dict__.pop(key, None)
            self.__dict__.update(before)

        return restore

    def _fill(self, checked: dict[str, Any]) -> None:
        state = JobState.AVAILABLE
        if "schedule_in" in checked:
            self.__dict__["_schedule_in"] = delay = checked.pop("schedule_in")
            checked["scheduled_at"] = clock.now() + timedelta(seconds=delay)
        if "scheduled_at" in checked and checked["scheduled_at"] > clock.now():
            state = JobState.SCHEDULED
        # Straight into the dict: the values are checked already, and an insert reads them from
        # there; going through instrumented attributes would take most of the time of a bulk insert.
        held = self.__dict__
        held.update(_NEW, state=state, args={}, meta={}, tags=[], errors=[], attempted_by=[])
        held.update(checked)

    @validates(*fields.CHECKS)
    def _check(self, field: str, value: object) -> Any:
        checked = fields.CHECKS[field](value)
        if field == "scheduled_at":
            self.__dict__.pop("_schedule_in", None)
            # Bulk inserts ask nobody else.
            if not self._is_persistent and self.state is JobState.AVAILABLE:
                self.state = JobState.SCHEDULED if checked > clock.now() else JobState.AVAILABLE
        return checked

    def cancelled(self) -> bool:
        """Whether this job was cancelled; in a worker, whether its run should stop.

        True in a running worker once the job was cancelled, from any node, or once the run has lost
        the job in another way (it was retried after a cancel, or deleted).
        """
        if self._run is not None:
            return self._run.cancelled
        return self.state is JobState.CANCELLED

    def __repr__(self) -> str:
        known = self.__dict__
        shown = ((key, known.get(key)) for key in ("id", "state", "queue", "worker", "attempt"))
        return f"Job({', '.join(f'{key}={value!s}' for key, value in shown)})"


@event.listens_for(Job, "before_insert")
def _settle_state(_: Any, __: Any, job: Job) -> None:
    """The time may have been set after the job was made."""
    if job.state is JobState.AVAILABLE and job.scheduled_at and job.scheduled_at > clock.now():
        job.state = JobState.SCHEDULED


@event.listens_for(Job, "before_insert")
@event.listens_for(Job, "before_update")
def _check_again(_: Any, __: Any, job: Job) -> None:
    """A list or dict may have been changed in place since it was checked."""
    for field in ("args", "meta", "tags"):
        if field in job.__dict__:
            job.__dict__[field] = fields.CHECKS[field](job.__dict__[field])


ddl.attach(cast(Table, Job.__table__))

_MAPPER = Job.__mapper__
_KEYS = [_MAPPER.get_property_by_column(column).key for column in Job.__table__.c]


def identity_key(job_id: int) -> Any:
    """The key of a job in a session's identity map."""
    return _MAPPER.identity_key_from_primary_key((job_id,))


class Leader(Base):
    """One row of `oban_leaders`: which node leads the instance `name`, and until when."""

    __tablename__ = "oban_leaders"
    __table_args__: Any = (PrimaryKeyConstraint("name", name="oban_leaders_pkey"),)

    name: Mapped[str] = mapped_column(Text)
    node: Mapped[str] = mapped_column(Text)
    elected_at: Mapped[datetime] = mapped_column(UTCDateTime)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime)


class Producer(Base):
    """One row of `oban_producers`: a queue that a node runs, and when it was last seen."""

    __tablename__ = "oban_producers"
    __table_args__: Any = (PrimaryKeyConstraint("uuid", name="oban_producers_pkey"),)

    uuid: Mapped[UUID] = mapped_column(Uuid)
    name: Mapped[str] = mapped_column(Text)
    node: Mapped[str] = mapped_column(Text)
    queue: Mapped[str] = mapped_column(Text)
    meta: Mapped[dict[str, Any]] = mapped_column(JSONDocument, server_default=text("'{}'"))
    started_at: Mapped[datetime] = mapped_column(UTCDateTime, server_default=utc_now())
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime, server_default=utc_now())


class Queue(Base):
    """One row of `oban_queues`: what was said about a queue of the instance `name`.

    `queue` is `*` for what is said about all queues, `node` is empty for all nodes. NULL in a column
    means that nothing is said; a limit of 0, that the configured one counts.
    """

    __tablename__ = "oban_queues"
    __table_args__: Any = (PrimaryKeyConstraint("name", "queue", "node", name="oban_queues_pkey"),)

    name: Mapped[str] = mapped_column(Text)
    queue: Mapped[str] = mapped_column(Text)
    node: Mapped[str] = mapped_column(Text, server_default=text("''"))
    running: Mapped[bool | None] = mapped_column(Boolean)
    limit: Mapped[int | None] = mapped_column(Integer)
    paused: Mapped[bool | None] = mapped_column(Boolean)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime, server_default=utc_now())


# `Job.of` goes past the constructor that would otherwise do this at the first use.
Base.registry.configure()
