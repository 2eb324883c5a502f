"""Enqueues jobs one at a time and runs them, with and without OpenTelemetry, whose exporters do nothing."""

import asyncio
from collections.abc import Callable, Sequence

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from sqlalchemy import URL

from benchmarks.drain import counting
from benchmarks.meter import CPU, POLL_INTERVAL, QUEUE, SERVER, WORKER, Meter
from oban import Job, Oban, Worker
from oban.otel import ObanInstrumentor

LIMIT = 50
WARM_UP = 20
#: The CPU time of the process and of the server together.
ALL_CPU = "all CPU us/job"


class NoSpans(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


class NoMetrics(MetricExporter):
    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: object
    ) -> MetricExportResult:
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: object) -> None:
        pass


def _traces(instrumentor: ObanInstrumentor) -> None:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(NoSpans()))
    instrumentor.instrument(tracer_provider=provider)


def _unsampled(instrumentor: ObanInstrumentor) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(BatchSpanProcessor(NoSpans()))
    instrumentor.instrument(tracer_provider=provider)


def _metrics(instrumentor: ObanInstrumentor) -> None:
    reader = PeriodicExportingMetricReader(NoMetrics(), export_interval_millis=1000)
    instrumentor.instrument(meter_provider=MeterProvider([reader]))


SETUPS: dict[str, Callable[[ObanInstrumentor], None]] = {
    "traces": _traces,
    "unsampled": _unsampled,
    "metrics": _metrics,
}


async def trip(url: URL, meter: Meter, _: str, *, setup: str | None = None) -> None:
    """Measure from the first call of `enqueue` until the last job is completed."""

    class Noop(Worker, name=WORKER, queue=QUEUE):
        async def process(self, job: Job) -> None:
            pass

    instrumentor = ObanInstrumentor()
    if setup is not None:
        SETUPS[setup](instrumentor)
    async with counting(url) as left, Oban(url) as client:
        for _n in range(WARM_UP):
            await client.enqueue(Noop.new())
        meter.start()
        for n in range(meter.jobs):
            await client.enqueue(Noop.new({"n": n}))
        async with Oban(url, name="node", queues={QUEUE: LIMIT}):
            while await left():  # noqa: ASYNC110
                await asyncio.sleep(POLL_INTERVAL)
            meter.stop()
    if SERVER in meter.figures:
        meter.figures[ALL_CPU] = meter.figures[CPU] + meter.figures[SERVER]
    if setup is not None:
        instrumentor.uninstrument()
