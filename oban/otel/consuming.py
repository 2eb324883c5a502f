"""Spans of attempts, which are the current ones while jobs run."""

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
    EXCEPTION_TYPE,
)
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from oban import error_texts
from oban.otel import attributes, propagation
from oban.otel.metrics import Metrics
from oban.telemetry import JobEnded, JobStarted

#: The module of the exceptions by which workers decide an outcome. They are no errors.
_OUTCOMES = "oban.outcomes."


class AttemptTrace:
    """The span of an attempt, and the context that was the current one before."""

    __slots__ = ("outer", "span")

    def __init__(self, span: Span, outer: Context) -> None:
        self.span: Span = span
        self.outer: Context = outer

    def carrier(self) -> dict[str, str]:
        """The current context, for a child process that runs the job."""
        return propagation.inject()


class Consuming:
    """Handles the events about attempts."""

    def __init__(self, tracer: Tracer, metrics: Metrics) -> None:
        self._tracer = tracer
        self._metrics = metrics

    def started(self, event: JobStarted) -> None:
        """Start the span of an attempt, in the task that runs it."""
        view = event.job
        self._metrics.started(view, event.queue_time)
        parent = propagation.extract(view._meta)
        span = self._tracer.start_span(
            f"{attributes.PROCESS} {view.queue}",
            parent,
            SpanKind.CONSUMER,
            {
                **attributes.PROCESSING,
                attributes.QUEUE: view.queue,
                attributes.JOB_ID: str(view.id),
                attributes.NODE: event.node,
                attributes.WORKER: view.worker,
                attributes.ATTEMPT: view.attempt,
                attributes.MAX_ATTEMPTS: view.max_attempts,
            },
            record_exception=False,
            set_status_on_exception=False,
        )
        # The baggage of the producer stays in the context.
        view.tracing = AttemptTrace(span, contexts.get_current())
        contexts.attach(trace.set_span_in_context(span, parent))
        context = span.get_span_context()
        if context.is_valid and context.trace_flags.sampled:
            view.trace = format(context.trace_id, "032x")

    def ended(self, event: JobEnded) -> None:
        """End the span of an attempt, in its task or in its thread, or where a node puts it back."""
        view = event.job
        self._metrics.ended(event)
        # There is no span if the attempt began before the handlers were attached.
        if not isinstance(tracing := view.tracing, AttemptTrace):
            return
        view.tracing = None
        span = tracing.span
        if span.is_recording():
            _describe(span, event)
        span.end()
        if trace.get_current_span() is span:
            # Not by a token, which only the context in which the attempt began would accept.
            contexts.attach(tracing.outer)


def _describe(span: Span, event: JobEnded) -> None:
    """Set the attributes that are known once an attempt has ended."""
    ending = {attributes.OUTCOME: event.outcome}
    if event.state is not None:
        ending[attributes.STATE] = str(event.state)
    error, type_ = event.error, event.error_type
    if error is None and type_ is None:
        span.set_attributes(ending)
        return
    line = None if error is None else error_texts.stored_error_line(error)
    if type_ is not None and not type_.startswith(_OUTCOMES):
        type_ = attributes.short_type(type_)
        _add_exception(span, type_, line, error)
    else:
        type_ = event.outcome
        if line is not None:
            ending[attributes.REASON] = line
    # A failure whose outcome does not count, because the job was cancelled meanwhile, is expected.
    if event.outcome in ("failed", "discarded") and event.state is not None:
        ending[attributes.ERROR_TYPE] = type_
        span.set_status(Status(StatusCode.ERROR, line))
    span.set_attributes(ending)


def _add_exception(span: Span, type_: str, line: str | None, error: str | None) -> None:
    """Add an exception, as it is stored in the job's errors, redacted."""
    described = {EXCEPTION_TYPE: type_}
    if line is not None and error is not None:
        name, colon, message = line.partition(": ")
        is_named = colon and name in (type_, type_.rpartition(".")[2])
        described[EXCEPTION_MESSAGE] = message if is_named else line
        described[EXCEPTION_STACKTRACE] = error
    span.add_event("exception", described)
