"""Spans of enqueued jobs and of attempts, and the metrics next to them."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import context, propagate, trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Cancel, Discard, Job, JobState, Oban, Snooze, SyncOban, Unique, Worker
from oban.errors import ConfigError
from oban.otel import ObanInstrumentor
from oban.testing import process_job
from tests.support.jobs import reaches
from tests.support.options import BRIEF, FAST_POLLING
from tests.support.tracing import Recorder, is_child, recording, trace_id
from tests.support.waiting import eventually
from tests.support.workers import Noop, Runs

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with recording() as recorder:
        yield recorder


def parent_in(job: Job) -> tuple[str, str]:
    """The trace and the span that a job continues."""
    _, trace_id, span_id, _ = job.meta["traceparent"].split("-")
    return trace_id, span_id


def exception_of(span: ReadableSpan) -> dict[str, Any]:
    (event,) = span.events
    assert event.name == "exception"
    return dict(event.attributes or {})


# -- enqueueing --------------------------------------------------------------------------------


async def test_a_job_brings_the_context_of_its_span(url: URL, recorder: Recorder) -> None:
    async with Oban(url, node="web") as oban:
        job = await oban.enqueue(Noop.new({"secret": "hunter2"}, queue="mail", meta={"own": 1}))
        stored = await oban.get_job(job.id)
    (span,) = recorder.spans
    assert (span.name, span.kind) == ("enqueue mail", SpanKind.PRODUCER)
    assert dict(span.attributes or {}) == {
        "messaging.system": "oban",
        "messaging.operation.name": "enqueue",
        "messaging.operation.type": "send",
        "messaging.destination.name": "mail",
        "messaging.message.id": str(job.id),
        "messaging.client.id": "web",
        "oban.worker": job.worker,
    }
    assert stored is not None
    assert stored.meta == {"own": 1, "traceparent": stored.meta["traceparent"]}
    assert stored.meta["traceparent"].split("-")[1:3] == [
        trace_id(span),
        format(span.context.span_id, "016x"),
    ]


async def test_many_jobs_have_one_span(url: URL, recorder: Recorder) -> None:
    async with Oban(url) as oban:
        jobs = await oban.enqueue_many([Noop.new(queue=queue) for queue in ("a", "a", "b")])
        await oban.enqueue_many([Noop.new(), Noop.new()])
        await oban.enqueue_many([])
    mixed, alike = recorder.spans
    assert (mixed.name, alike.name) == ("enqueue", "enqueue default")
    assert mixed.attributes is not None
    assert mixed.attributes["messaging.batch.message_count"] == 3
    assert "messaging.message.id" not in mixed.attributes
    assert {job.meta["traceparent"].split("-")[1] for job in jobs} == {trace_id(mixed)}
    counts = {
        labels["messaging.destination.name"]: n
        for labels, n in recorder.points("messaging.client.sent.messages")
    }
    assert counts == {"a": 2, "b": 1, "default": 2}


async def test_a_call_in_the_session_of_the_caller_continues_its_span(url: URL, recorder: Recorder) -> None:
    async with Oban(url) as oban, AsyncSession(oban.engine) as session:
        with recorder.tracer.start_as_current_span("request") as span:
            job = await oban.enqueue(Noop.new(), session=session)
            assert trace.get_current_span() is span
    enqueue, request = recorder.spans
    assert is_child(enqueue, request)
    assert parent_in(job) == (trace_id(enqueue), format(enqueue.context.span_id, "016x"))


async def test_a_job_that_a_session_inserts_brings_the_current_context(url: URL, recorder: Recorder) -> None:
    async with Oban(url, queues={"default": 1}, **FAST_POLLING) as oban:
        async with AsyncSession(oban.engine) as session, session.begin():
            job = Noop.new(meta={"own": 1})
            with recorder.tracer.start_as_current_span("request"):
                session.add(job)
                await session.flush()
            job_id = job.id
        await reaches(oban, job_id, JobState.COMPLETED)
    request, process = recorder.spans
    assert process.name == "process default"
    assert is_child(process, request)


async def test_sync_clients_make_the_same_spans(url: URL, recorder: Recorder) -> None:
    driver = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}[url.get_backend_name()]
    with SyncOban(url.set(drivername=driver)) as oban:
        job = oban.enqueue(Noop.new())
    (span,) = recorder.spans
    assert (span.name, span.kind) == ("enqueue default", SpanKind.PRODUCER)
    assert parent_in(job) == (trace_id(span), format(span.context.span_id, "016x"))


async def test_a_plain_worker_enqueues_in_the_trace_of_its_job(url: URL, recorder: Recorder) -> None:
    # By its name, because a `SyncOban` of another test may not be collected yet.
    class Child(Noop, oban="sync-calls"):
        pass

    class Parent(Worker):
        def process(self, job: Job) -> None:
            Child.enqueue_sync(queue="other")

    async with Oban(url, name="sync-calls", queues={"default": 1}, **BRIEF) as oban:
        await reaches(oban, await oban.enqueue(Parent.new()), JobState.COMPLETED)
    (enqueue,), (process,) = recorder.named("enqueue other"), recorder.named("process default")
    assert is_child(enqueue, process)


async def test_a_duplicate_is_not_counted_as_sent(url: URL, recorder: Recorder) -> None:
    async with Oban(url) as oban:
        first = await oban.enqueue(Noop.new(unique=True))
        second = await oban.enqueue(Noop.new(unique=True))
        await oban.enqueue_many([Noop.new(unique=True), Noop.new({"n": 2}, unique=True)])
    assert second.conflict
    assert second.meta == first.meta
    _, conflict, batch = (dict(span.attributes or {}) for span in recorder.spans)
    assert "messaging.message.id" not in conflict
    assert conflict["oban.conflict_id"] == first.id
    assert (batch["messaging.batch.message_count"], batch["oban.conflicts"]) == (1, 1)
    assert [n for _, n in recorder.points("messaging.client.sent.messages")] == [2]


async def test_the_context_does_not_make_unique_jobs_differ(url: URL, recorder: Recorder) -> None:
    unique = Unique(fields=["worker", "meta"])
    async with Oban(url) as oban:
        first = await oban.enqueue(Noop.new(meta={"a": 1}, unique=unique))
        second = await oban.enqueue(Noop.new(meta={"a": 1}, unique=unique))
        third = await oban.enqueue(Noop.new(meta={"a": 2}, unique=unique))
    assert (second.id, second.conflict, third.conflict) == (first.id, True, False)


async def test_a_failed_insertion_quotes_no_args(url: URL, recorder: Recorder) -> None:
    async with Oban(url) as oban:
        job = Noop.new({"secret": "hunter2"})
        job.args["wrong"] = object()
        with pytest.raises(ValueError, match="wrong"):
            await oban.enqueue(job)
    (span,) = recorder.spans
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "oban.errors.EncodingError"
    assert "hunter2" not in span.to_json()
    ((labels, count),) = recorder.points("messaging.client.sent.messages")
    assert (labels["error.type"], count) == ("oban.errors.EncodingError", 1)


# -- attempts ----------------------------------------------------------------------------------


async def test_each_attempt_has_its_own_span_in_the_trace(url: URL, recorder: Recorder) -> None:
    class Retried(Worker, max_attempts=2, redact="token"):
        async def process(self, job: Job) -> None:
            raise ValueError(f"refused: {job.args['token']}")

        def backoff(self, job: Job) -> int:
            return 0

    async with Oban(url, queues={"default": 1}, **FAST_POLLING) as oban:
        job = await oban.enqueue(Retried.new({"token": "hunter22"}))
        await reaches(oban, job, JobState.DISCARDED)
        attempts = await oban.list_attempts(job)
    # The job can start before its insertion has returned.
    (enqueue,), spans = recorder.named("enqueue default"), recorder.named("process default")
    assert [(span.attributes or {})["oban.attempt"] for span in spans] == [1, 2]
    assert [(span.attributes or {})["oban.state"] for span in spans] == ["retryable", "discarded"]
    assert all(is_child(span, enqueue) for span in spans)
    assert {attempt.trace for attempt in attempts} == {trace_id(enqueue)}
    for span in spans:
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == "ValueError"
        exception = exception_of(span)
        assert exception["exception.type"] == "ValueError"
        assert exception["exception.message"] == "refused: [redacted]"
        assert "Traceback" in exception["exception.stacktrace"]
        assert "hunter22" not in span.to_json()


class Ending(Worker, max_attempts=1):
    """Ends as its args say."""

    endings: dict[str, Callable[[], Any]]

    async def process(self, job: Job) -> Any:
        return self.endings[job.args["how"]]()


@pytest.mark.either_database
@pytest.mark.parametrize(
    ("ending", "outcome", "state", "attributes", "is_error"),
    [
        (lambda: None, "completed", JobState.COMPLETED, {}, False),
        (lambda: Cancel("no more"), "cancelled", JobState.CANCELLED, {"oban.reason": "no more"}, False),
        (
            lambda: Discard("useless"),
            "discarded",
            JobState.DISCARDED,
            {"oban.reason": "useless", "error.type": "discarded"},
            True,
        ),
        (lambda: Snooze(3600), "snoozed", JobState.SCHEDULED, {}, False),
    ],
    ids=["completed", "cancelled", "discarded", "snoozed"],
)
async def test_the_span_of_an_attempt_has_its_outcome(
    ending: Any,
    outcome: str,
    state: JobState,
    attributes: dict[str, Any],
    is_error: bool,
    url: URL,
    recorder: Recorder,
) -> None:
    Ending.endings = {outcome: ending}
    async with Oban(url, node="here", queues={"default": 1}, **BRIEF) as oban:
        job = await oban.enqueue(Ending.new({"how": outcome}))
        await reaches(oban, job, state)
        (attempt,) = await oban.list_attempts(job)
    (span,) = recorder.named("process default")
    assert span.kind is SpanKind.CONSUMER
    assert dict(span.attributes or {}) == {
        "messaging.system": "oban",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "default",
        "messaging.message.id": str(job.id),
        "messaging.client.id": "here",
        "oban.worker": job.worker,
        "oban.attempt": 1,
        "oban.max_attempts": 1,
        "oban.outcome": outcome,
        "oban.state": state.value,
        **attributes,
    }
    assert (span.status.status_code is StatusCode.ERROR) == is_error
    assert span.events == ()
    assert attempt.trace == trace_id(span)
    ((labels, count),) = recorder.points("messaging.process.duration")
    assert (labels["oban.outcome"], labels["oban.worker"], count) == (outcome, job.worker, 1)
    for name in ("oban.job.queue_time", "messaging.client.consumed.messages"):
        assert [count for _, count in recorder.points(name)] == [1]


async def test_the_span_of_a_job_that_was_cancelled_meanwhile_has_no_state(
    url: URL, recorder: Recorder
) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 1}, **FAST_POLLING) as oban:
        job = await oban.enqueue(runs.worker.new())
        begun = await runs.begun(1)
        await oban.cancel_job(job)
        await eventually(begun.cancelled)
        runs.fail(1, RuntimeError("stopped half-way"))
        (span,) = await eventually(lambda: recorder.named("process default"))

        async def stored() -> bool:
            return (await oban.list_attempts(job))[0].trace == trace_id(span)

        await eventually(stored)
    assert "oban.state" not in (span.attributes or {})
    assert span.status.status_code is StatusCode.UNSET
    assert exception_of(span)["exception.message"] == "stopped half-way"


async def test_the_span_of_a_job_that_its_node_puts_back_ends(url: URL, recorder: Recorder) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 1}, shutdown_grace_period=0.05) as oban:
        job = await oban.enqueue(runs.worker.new())
        await runs.begun(1)
    (span,) = recorder.named("process default")
    assert (span.attributes or {})["oban.outcome"] == "released"
    async with Oban(url) as oban:
        assert [attempt.trace for attempt in await oban.list_attempts(job)] == [trace_id(span)]


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("middleware", [None, "async", "plain"])
async def test_the_span_is_the_current_one_in_the_job(
    is_async: bool, middleware: str | None, url: URL, recorder: Recorder
) -> None:
    seen: list[trace.Span] = []

    class OnLoop(Worker):
        async def process(self, job: Job, session: AsyncSession) -> None:
            await asyncio.sleep(0)
            seen.append(trace.get_current_span())

    class InThread(Worker):
        def process(self, job: Job) -> None:
            seen.append(trace.get_current_span())

    async def around(job: Job, call_next: Any) -> Any:
        seen.append(trace.get_current_span())
        return await call_next(job)

    def plainly_around(job: Job, call_next: Any) -> Any:
        seen.append(trace.get_current_span())
        return call_next(job)

    layers = {"async": [around], "plain": [plainly_around], None: []}[middleware]
    async with Oban(url, queues={"default": 1}, middleware=layers, **BRIEF) as oban:
        job = await oban.enqueue((OnLoop if is_async else InThread).new())
        await reaches(oban, job, JobState.COMPLETED)
    (span,) = recorder.named("process default")
    assert {one.get_span_context().span_id for one in seen} == {span.context.span_id}
    assert len(seen) == 1 + len(layers)


async def test_a_node_that_starts_in_a_span_does_not_make_jobs_part_of_it(
    url: URL, recorder: Recorder
) -> None:
    job = Job(worker=Noop.worker_name)
    with suppress_instrumentation():
        async with Oban(url) as client:
            await client.enqueue(job)
    with recorder.tracer.start_as_current_span("startup"):
        async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
            await reaches(oban, job, JobState.COMPLETED)
    assert job.meta == {}
    (process,) = recorder.named("process default")
    assert process.parent is None


@pytest.mark.either_database
@pytest.mark.parametrize(
    "meta",
    [
        {"traceparent": "00-zz-1-01"},
        {"traceparent": 7, "tracestate": ["a"], "baggage": {"a": None}},
        {"traceparent": PARENT + "x" * 10_000},
        {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"},
        {"tracestate": "=,,=;" * 500, "baggage": "%ff=%ff;;==,\x7f" * 900},
    ],
    ids=["no digits", "no strings", "too long", "zeros", "garbage"],
)
async def test_a_broken_context_fails_no_job_and_begins_a_trace(
    meta: dict[str, Any], url: URL, recorder: Recorder
) -> None:
    with suppress_instrumentation():
        async with Oban(url) as client:
            job = await client.enqueue(Noop.new(meta=meta))
    async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
        await reaches(oban, job, JobState.COMPLETED)
    (span,) = recorder.spans
    assert span.parent is None
    assert span.status.status_code is StatusCode.UNSET


async def test_no_propagator_reads_a_value_that_is_longer_than_any_standard_allows(
    url: URL, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[str] | None] = []

    def extract(carrier: Any, context: Any, getter: Any) -> Any:
        read.extend(getter.get(carrier, key) for key in ("short", "long", "missing"))
        return context

    monkeypatch.setattr(propagate, "extract", extract)
    async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
        job = await oban.enqueue(Noop.new(meta={"short": "x" * 8192, "long": "x" * 8193}))
        await reaches(oban, job, JobState.COMPLETED)
    assert read == [["x" * 8192], None, None]


async def test_a_job_that_a_test_runs_leaves_the_span_of_the_test(recorder: Recorder) -> None:
    with recorder.tracer.start_as_current_span("test") as span:
        await process_job(Noop.new())
        assert trace.get_current_span() is span
    assert len(recorder.named("process default")) == 1


async def test_a_propagator_that_fails_costs_the_context_only(
    url: URL, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no propagation")

    monkeypatch.setattr(propagate, "inject", fail)
    monkeypatch.setattr(propagate, "extract", fail)
    async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
        async with AsyncSession(oban.engine) as session, session.begin():
            session.add(Noop.new())
        job = await oban.enqueue(Noop.new(meta={"a": 1}))
        await reaches(oban, job, JobState.COMPLETED)
    assert len(recorder.named("enqueue default")) == 1
    assert {record.name for record in caplog.records if record.levelno >= logging.WARNING} == {"oban.otel"}


async def test_a_trace_that_is_not_sampled_is_passed_on_and_not_stored(url: URL) -> None:
    with recording(ParentBased(ALWAYS_OFF)) as recorder:
        async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
            job = await oban.enqueue(Noop.new())
            await reaches(oban, job, JobState.COMPLETED)
            (attempt,) = await oban.list_attempts(job)
    assert recorder.spans == []
    assert attempt.trace is None
    assert int(job.meta["traceparent"][-2:], 16) & 1 == 0


async def test_without_a_provider_a_context_is_passed_on(url: URL) -> None:
    ObanInstrumentor().instrument()
    token = context.attach(propagate.extract({"traceparent": PARENT}))
    try:
        async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
            job = await oban.enqueue(Noop.new())
            await reaches(oban, job, JobState.COMPLETED)
            (attempt,) = await oban.list_attempts(job)
    finally:
        context.detach(token)
        ObanInstrumentor().uninstrument()
    assert job.meta == {"traceparent": PARENT}
    assert attempt.trace == TRACE


# -- the instrumentor --------------------------------------------------------------------------


async def test_one_of_two_instances_can_be_instrumented(url: URL) -> None:
    recorder = Recorder()
    instrumentor = ObanInstrumentor()
    async with Oban(url, name="traced") as traced, Oban(url, name="other") as other:
        instrumentor.instrument_client(traced, **recorder.providers)
        with_context = await traced.enqueue(Noop.new())
        without = await other.enqueue(Noop.new())
        instrumentor.uninstrument_client(traced)
        instrumentor.uninstrument_client(other)
        after = await traced.enqueue(Noop.new())
    assert len(recorder.spans) == 1
    assert "traceparent" in with_context.meta
    assert without.meta == after.meta == {}


async def test_uninstrument_restores_everything(url: URL) -> None:
    with recording() as recorder:
        pass
    async with Oban(url, queues={"default": 1}, **FAST_POLLING) as oban:
        with recorder.tracer.start_as_current_span("request"):
            async with AsyncSession(oban.engine, expire_on_commit=False) as session, session.begin():
                added = Noop.new()
                session.add(added)
            job = await oban.enqueue(Noop.new())
        await reaches(oban, job, JobState.COMPLETED)
        assert not oban.telemetry.observes_attempts
        assert not oban.telemetry.observes_enqueues
    assert added.meta == job.meta == {}
    assert [span.name for span in recorder.spans] == ["request"]
    assert recorder.points("messaging.client.sent.messages") == []


async def test_a_client_has_one_span_however_it_is_instrumented(
    url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    own = Recorder()
    async with Oban(url) as oban:
        ObanInstrumentor().instrument_client(oban, **own.providers)
        ObanInstrumentor().instrument_client(oban, **own.providers)
        with recording() as recorder:
            ObanInstrumentor().instrument_client(oban, **own.providers)
            await oban.enqueue(Noop.new())
        await oban.enqueue(Noop.new())
    assert (len(own.spans), len(recorder.spans)) == (0, 1)
    assert [record.getMessage() for record in caplog.records] == ["the client is instrumented already"] * 2


def test_only_clients_can_be_instrumented() -> None:
    with pytest.raises(ConfigError, match="takes an Oban or a SyncOban, not 'web'"):
        ObanInstrumentor().instrument_client("web")  # type: ignore[arg-type]


async def test_labels_of_metrics_are_bounded(url: URL, recorder: Recorder) -> None:
    async with Oban(url) as oban:
        await oban.enqueue_many([Noop.new(queue=f"q{n}") for n in range(300)])
    queues = [
        labels["messaging.destination.name"]
        for labels, _ in recorder.points("messaging.client.sent.messages")
    ]
    assert len(queues) == 201
    assert "_OTHER" in queues
