"""Spans around the insertion of jobs, and the context of the trace in their `meta`."""

import logging
from collections.abc import Sequence
from contextvars import Token
from types import TracebackType
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from sqlalchemy import event
from sqlalchemy.orm import InstanceState

from oban import clock
from oban.models import Job
from oban.otel import attributes, propagation
from oban.otel.metrics import Metrics
from oban.telemetry import Telemetry
from oban.telemetry.errors import type_name

logger = logging.getLogger("oban.otel")


class Producing:
    """Makes the context managers in which clients insert jobs."""

    def __init__(self, tracer: Tracer, metrics: Metrics) -> None:
        self._tracer = tracer
        self._metrics = metrics

    def wrap(self, telemetry: Telemetry, jobs: Sequence[Job], in_transaction: bool) -> "Insertion":
        return Insertion(self._tracer, self._metrics, telemetry, jobs)


class Insertion:
    """One call that inserts jobs. Its span is the current one in the `with` block. Never raises."""

    def __init__(self, tracer: Tracer, metrics: Metrics, telemetry: Telemetry, jobs: Sequence[Job]) -> None:
        self._tracer = tracer
        self._metrics = metrics
        self._telemetry = telemetry
        self._jobs = jobs
        self._span: Span | None = None
        self._token: Token[contexts.Context] | None = None
        self._started_at = 0.0
        #: The queue of all jobs; None if they have several.
        self._queue: str | None = None

    def __enter__(self) -> None:
        if not self._jobs or not is_instrumentation_enabled():
            return
        self._started_at = clock.monotonic()
        # Whatever a sampler, a processor or a propagator raises, the jobs have to be inserted.
        try:
            self._start()
        except Exception:
            logger.exception("the span of an insertion could not be started")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            contexts.detach(self._token)
        if self._span is None:
            return
        try:
            self._end(self._span, error)
        except Exception:
            logger.exception("the span of an insertion could not be ended")

    def _start(self) -> None:
        jobs = self._jobs
        name, described = attributes.ENQUEUE, {**attributes.ENQUEUEING}
        self._queue = _common("queue", jobs)
        if self._queue is not None:
            name = f"{name} {self._queue}"
            described[attributes.QUEUE] = self._queue
        if (worker := _common("worker", jobs)) is not None:
            described[attributes.WORKER] = worker
        described[attributes.NODE] = self._telemetry.node
        self._span = self._tracer.start_span(
            name,
            kind=SpanKind.PRODUCER,
            attributes=described,
            record_exception=False,
            set_status_on_exception=False,
        )
        context = trace.set_span_in_context(self._span)
        self._token = contexts.attach(context)
        if carrier := propagation.inject(context):
            for job in jobs:
                _add_to_meta(job.__dict__, carrier)

    def _end(self, span: Span, error: BaseException | None) -> None:
        inserted = [] if error is not None else [job for job in self._jobs if not job.conflict]
        type_ = None if error is None else attributes.short_type(type_name(error))
        duration = clock.monotonic() - self._started_at
        self._metrics.enqueued(self._jobs if error else inserted, self._queue, duration, type_)
        if span.is_recording():
            if ending := self._ending(inserted, is_known=error is None):
                span.set_attributes(ending)
            if type_ is not None:
                # Not its message, in which drivers and SQLAlchemy quote the args.
                span.set_attribute(attributes.ERROR_TYPE, type_)
                span.set_status(Status(StatusCode.ERROR))
        span.end()

    def _ending(self, inserted: Sequence[Job], *, is_known: bool) -> dict[str, Any]:
        """The attributes that are known once the jobs are inserted."""
        jobs = self._jobs
        if len(jobs) > 1:
            count = len(inserted) if is_known else len(jobs)
            conflicts = len(jobs) - count
            return {attributes.COUNT: count, **({attributes.CONFLICTS: conflicts} if conflicts else {})}
        if not is_known or (job_id := jobs[0].__dict__.get("id")) is None:
            return {}
        return {attributes.JOB_ID: str(job_id)} if inserted else {attributes.CONFLICT_ID: job_id}


def _common(field: str, jobs: Sequence[Job]) -> str | None:
    """The value of a field that all jobs have; None if they have different ones."""
    value = jobs[0].__dict__.get(field)
    if len(jobs) > 1 and any(job.__dict__.get(field) != value for job in jobs):
        return None
    return value if isinstance(value, str) else None


def _add_to_meta(values: dict[str, Any], carrier: dict[str, str]) -> None:
    # A new dict, because jobs can share theirs. A wrong one is refused by the insertion.
    meta = values.get("meta")
    if not meta:
        values["meta"] = {**carrier}
    elif isinstance(meta, dict):
        values["meta"] = {**meta, **carrier}


# -- jobs that a session inserts -----------------------------------------------------------------


def listen_to_sessions() -> None:
    """Add the current context to jobs that are inserted by `session.add`."""
    # Before Oban's own listener, which checks the meta.
    event.listen(Job, "before_insert", _before_insert, raw=True, propagate=True, insert=True)


def stop_listening() -> None:
    event.remove(Job, "before_insert", _before_insert)


def _before_insert(_: Any, __: Any, state: InstanceState[Any]) -> None:
    try:
        if is_instrumentation_enabled() and (carrier := propagation.inject()):
            _add_to_meta(state.dict, carrier)
    except Exception:
        logger.exception("a job of a session gets no context")
