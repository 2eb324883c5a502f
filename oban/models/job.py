"""`Job`, the model of `oban_jobs`."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, ClassVar, Unpack

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    Identity,
    Index,
    PrimaryKeyConstraint,
    SmallInteger,
    Text,
    literal_column,
    text,
)
from sqlalchemy.orm import (
    Mapped,
    make_transient,
    mapped_column,
    validates,
)

from oban import clock, ddl, encryption, fields, flush, redaction
from oban.detached import Detachable
from oban.errors import InvalidJob
from oban.fields import JobFields
from oban.initial_state import default_state, state_at
from oban.models.base import Base
from oban.models.in_worker import InWorker
from oban.types import (
    EMPTY_LIST,
    STATES,
    UTC_NOW,
    BigKey,
    DueTime,
    JobState,
    JSONDocument,
    KeyText,
    OptionalDocument,
    StateType,
    TextList,
    UTCDateTime,
    parse_state,
)
from oban.unique import of_job
from oban.unique_defaults import default_key, default_rule

DEFAULT_MAX_ATTEMPTS = 20
#: Values of a new job, in addition to empty lists and dicts.
_DEFAULTS = {"queue": "default", "attempt": 0, "max_attempts": DEFAULT_MAX_ATTEMPTS, "priority": 0}


def _partial_index(name: str, *columns: str, where: str, purpose: str) -> Index:
    condition: ColumnElement[bool] = literal_column(where)
    return Index(
        f"oban_jobs_{name}_index",
        *columns,
        postgresql_where=condition,
        sqlite_where=condition,
        info={"purpose": purpose},
    )


class Job(InWorker, Detachable, Base):
    """One row of `oban_jobs`: a unit of work, from when it is enqueued until it is pruned.

    `MyWorker.new(…)` makes a job of a worker. `Job(…)` makes one of any worker, by its name; it checks and
    copies the values. The arguments, except `schedule_in`, `unique` and `replace`, are also attributes.

    Args:
        worker: Name of the worker that processes the job, a string of up to 255 characters. Required.
        args: The worker's arguments, a dict of JSON values (default `{}`).
        queue: The queue that the job waits in, a name of up to 128 characters (default "default").
        priority: Which jobs of a queue start first, from 0 (first) to 9 (last) (default 0).
        max_attempts: How many times the job can start before a failure discards it, 1 to 32767 (default 20,
            unless the `Oban` that enqueues it has another one).
        tags: Up to 100 strings of up to 255 characters, stored in lower case (default none).
        meta: Anything else about the job, a dict of JSON values (default `{}`). Oban sets the keys
            `progress`, `recorded`, `return`, `snoozed` and `rescued`.
        scheduled_at: When the job is due, a datetime with a time zone (default now); UTC in the attribute.
        schedule_in: Instead of `scheduled_at`: seconds from now, or a timedelta; a negative one means now.
            `scheduled_in` is another name for it.
        unique: Whether the job is not inserted if there is a duplicate of it: True, a dict of the arguments
            of `Unique`, or a `Unique`; False turns the worker's option off (default: the worker's).
        replace: The fields of a duplicate that this job replaces: a list, or a dict of lists by the state of
            the duplicate (default: the worker's).

    Attributes:
        id: The primary key; None before the job is enqueued.
        state: A `JobState`. It can be assigned, also as a string: a new job can be made `suspended`, and
            one for `session.add` can have any state.
        attempt: How many times the job has started.
        errors: Why attempts failed or were cancelled, as `{"attempt": 1, "at": "…", "error": "…"}`; of more
            than 20, the first and the last 10.
        attempted_by: Node and producer of the last attempt.
        conflict: Whether a call found this job instead of inserting another one, because that is unique.
        inserted_at: When the job was enqueued, in UTC like all times.
        attempted_at: When the last attempt started, or None.
        cancelled_at, completed_at, discarded_at: When the job reached the state of this name, or None.
        unique_key: What a unique job shares with its duplicates; None for other jobs.
        unique_rule: The rule by which the job is unique, for a retry or an update; None for other jobs.

    Raises:
        InvalidJob: A field is unknown, missing or has a wrong value.
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
            info={
                "purpose": "Finds the next jobs of a queue in the order in which they start, and counts"
                " jobs by queue and state."
            },
        ),
        _partial_index(
            "staging",
            *("scheduled_at", "id"),
            where="state IN ('scheduled', 'retryable')",
            purpose="Finds the jobs that have become due.",
        ),
        *(
            _partial_index(
                f"{state}_at",
                f"{state}_at",
                where=f"state = '{state}'",
                purpose="Finds the jobs whose retention has ended, and counts those that ended lately.",
            )
            for state in ("completed", "cancelled", "discarded")
        ),
        _partial_index(
            "exhausted",
            "id",
            where="state = 'available' AND attempt >= max_attempts",
            purpose="Finds available jobs without an attempt left, which the leader discards.",
        ),
        _partial_index(
            "unique_key",
            *("unique_key", "state", "inserted_at", "scheduled_at"),
            where="unique_key IS NOT NULL",
            purpose="Finds the duplicates of a unique job. It has no row for other jobs.",
        ),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigKey, Identity())
    state: Mapped[JobState] = mapped_column(
        StateType, insert_default=default_state, server_default=text("'available'")
    )
    queue: Mapped[str] = mapped_column(Text, server_default=text("'default'"))
    worker: Mapped[str] = mapped_column(Text)
    attempt: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    max_attempts: Mapped[int] = mapped_column(SmallInteger, server_default=text(str(DEFAULT_MAX_ATTEMPTS)))
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    args: Mapped[dict[str, Any]] = mapped_column(JSONDocument("args"), server_default=text("'{}'"))
    meta: Mapped[dict[str, Any]] = mapped_column(JSONDocument("meta"), server_default=text("'{}'"))
    tags: Mapped[list[str]] = mapped_column(TextList, server_default=EMPTY_LIST)
    errors: Mapped[list[dict[str, Any]]] = mapped_column(JSONDocument, server_default=text("'[]'"))
    attempted_by: Mapped[list[str]] = mapped_column(TextList, server_default=EMPTY_LIST)
    inserted_at: Mapped[datetime] = mapped_column(UTCDateTime, server_default=UTC_NOW)
    # NULL is sent for a job that is due at once, so that one INSERT serves jobs with and without a time.
    scheduled_at: Mapped[datetime] = mapped_column(DueTime().evaluates_none(), server_default=UTC_NOW)
    # Without evaluates_none(), SQLAlchemy would send a NULL for each of these that is not set. `oban.flush`
    # does so where one of the jobs has such a time.
    attempted_at: Mapped[datetime | None] = mapped_column(UTCDateTime().evaluates_none())
    cancelled_at: Mapped[datetime | None] = mapped_column(UTCDateTime().evaluates_none())
    completed_at: Mapped[datetime | None] = mapped_column(UTCDateTime().evaluates_none())
    discarded_at: Mapped[datetime | None] = mapped_column(UTCDateTime().evaluates_none())
    # The flush sets both. The defaults are for other INSERT statements.
    unique_key: Mapped[str | None] = mapped_column(KeyText.evaluates_none(), insert_default=default_key)
    unique_rule: Mapped[dict[str, Any] | None] = mapped_column(
        OptionalDocument().evaluates_none(), insert_default=default_rule
    )

    #: Whether the job was not inserted, because it is unique and this row was there.
    conflict = False
    #: Seconds, from which `enqueue` computes `scheduled_at` by the database's clock.
    _schedule_in: ClassVar[float | None] = None
    #: Whether the job's worker or its maker has set `max_attempts`, so that no default replaces it.
    _sets_max_attempts: ClassVar[bool] = False

    def __init__(self, **values: Unpack[JobFields]) -> None:
        if "worker" not in values:
            raise InvalidJob("worker", "is missing")
        checked = fields.check(values)
        if encryption.is_used:
            checked.setdefault("args", {})
            encryption.seal_values(checked)
        self._fill(checked)

    @classmethod
    def _from_checked(cls, checked: dict[str, Any]) -> "Job":
        """Create a new job from a dict that `oban.fields` has checked, without copying its values."""
        job = cls._blank()
        job._fill(checked)
        return job

    @classmethod
    def _template(cls, checked: Mapping[str, Any]) -> dict[str, Any]:
        """The values that new jobs with these checked fields share, for `_from_template`."""
        values = vars(cls._from_checked({**checked})).copy()
        values.pop("_sa_instance_state", None)
        return values

    @classmethod
    def _from_template(cls, template: dict[str, Any], args: dict[str, Any]) -> "Job":
        """Create a new job from a template without tags and meta. It takes half of the time of `_fill`."""
        job = cls._blank()
        values = job.__dict__
        values.update(template)
        values["args"] = args
        # Each job needs its own lists and dicts.
        values["meta"], values["tags"], values["errors"], values["attempted_by"] = {}, [], [], []
        return job

    @classmethod
    def _from_row(cls, row: Iterable[Any]) -> "Job":
        """Create a detached job from a row with all columns, in the order of the table.

        Loading the row through a session gives the same, at three times the cost.
        """
        job = cls._blank()
        job.__dict__.update(zip(COLUMN_KEYS, row, strict=True))
        job._mark_persistent()
        return job

    def _restore_on_rollback(self) -> Callable[[], None]:
        """Return a function that turns the instance back into the new job that it is now."""
        before = self.__dict__.copy()
        before.pop("_sa_instance_state", None)
        return partial(self._restore, before)

    def _restore(self, before: dict[str, Any]) -> None:
        make_transient(self)
        for key in COLUMN_KEYS:
            self.__dict__.pop(key, None)
        self.__dict__.update(before)

    def _fill(self, checked: dict[str, Any]) -> None:
        # Not through the instrumented attributes, which would check each value again and would take most of
        # the time of a bulk insert. The insert reads the values from this dict, too.
        values = self.__dict__
        if "schedule_in" in checked:
            values["_schedule_in"] = delay = checked.pop("schedule_in")
            checked["scheduled_at"] = clock.now() + timedelta(seconds=delay)
        state = state_at(checked["scheduled_at"]) if "scheduled_at" in checked else JobState.AVAILABLE
        if "max_attempts" in checked:
            values["_sets_max_attempts"] = True
        values.update(_DEFAULTS, state=state, args={}, meta={}, tags=[], errors=[], attempted_by=[])
        if "unique" in checked or "replace" in checked:
            self._set_unique(checked)
        values.update(checked)
        redaction.mark(values)

    def _set_unique(self, checked: dict[str, Any]) -> None:
        values = self.__dict__
        unique, replacement = checked.pop("unique", None), checked.pop("replace", None)
        if unique is not None:
            values["_unique"] = unique or None
            # bulk_save_objects() and session.merge() only read columns.
            if unique:
                values["unique_rule"] = unique.rule()
            else:
                values["unique_key"] = None
        if replacement is not None:
            values["_replace"] = replacement
        if replacement and of_job({**values, "worker": checked["worker"]})[0] is None:
            raise InvalidJob("replace", "is for unique jobs: pass unique as well")

    @validates(*fields.CHECKS)
    def _check(self, field: str, value: object) -> Any:
        checked = fields.CHECKS[field](value)
        # The worker sees its own args as they are. A flush encrypts them.
        if field == "args" and encryption.is_used and "_run" not in self.__dict__:
            new = {"worker": self.__dict__.get("worker"), "args": checked}
            encryption.seal_values(new, self.__dict__.get("args"))
            return new["args"]
        if field in ("meta", "worker"):
            # Whatever sets them, the job says which fields are redacted.
            before = self.__dict__
            marked = {"worker": before.get("worker"), "meta": before.get("meta"), field: checked}
            redaction.mark(marked)
            if field == "meta":
                return marked["meta"]
            if marked["meta"] is not before.get("meta"):
                self.meta = marked["meta"]
        if field == "max_attempts":
            self.__dict__["_sets_max_attempts"] = True
        if field == "scheduled_at":
            self.__dict__.pop("_schedule_in", None)
            # Not only before the insert, because bulk_save_objects() does not send `before_insert`.
            if not self._is_persistent and self.state == JobState.AVAILABLE:
                self.state = state_at(checked)
        return checked

    @validates("state")
    def _check_state(self, _: str, value: object) -> JobState:
        return parse_state(value)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if encryption.is_used:
            encryption.seal_values(state)
        return state

    @property
    def recorded(self) -> Any:
        """The value that the worker stored with `Record`; None without one."""
        return self.meta.get("return") if self.meta.get("recorded") else None

    def __repr__(self) -> str:
        # Only what is loaded: the instance may be expired, and a query here would be a surprise.
        loaded = [key for key in ("state", "queue", "worker", "attempt") if key in self.__dict__]
        values = [f"id={self._known_id}", *(f"{key}={self.__dict__[key]!s}" for key in loaded)]
        return f"Job({', '.join(values)})"


ddl.attach(Job.__table__)
flush.attach(Job)

_MAPPER = Job.__mapper__
#: The attributes of `Job` that are columns, in the order of the table.
COLUMN_KEYS = [_MAPPER.get_property_by_column(column).key for column in Job.__table__.c]


def identity_key(job_id: int) -> Any:
    """The key of a job in a session's identity map."""
    return _MAPPER.identity_key_from_primary_key((job_id,))
