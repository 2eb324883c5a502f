"""Spans and metrics in memory, and spans of other processes in a file."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from oban.otel import ObanInstrumentor

#: The labels and the value of a counter, or the number of values of a histogram.
Point = tuple[dict[str, Any], int]


class Recorder:
    """What an instrumentation has made, in memory."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(sampler=sampler)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self._reader])
        self.tracer = self.tracer_provider.get_tracer("tests")

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended, the first one first."""
        return [*self._exporter.get_finished_spans()]

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def points(self, name: str) -> list[Point]:
        """The points of a metric."""
        data = self._reader.get_metrics_data()
        return [
            (dict(point.attributes or {}), _value(point))
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    @property
    def providers(self) -> dict[str, Any]:
        return {"tracer_provider": self.tracer_provider, "meter_provider": self.meter_provider}


def _value(point: Any) -> int:
    return int(point.value if hasattr(point, "value") else point.count)


@contextmanager
def recording(sampler: Sampler | None = None) -> Iterator[Recorder]:
    """Instrument every client."""
    recorder = Recorder(sampler)
    ObanInstrumentor().instrument(**recorder.providers)
    try:
        yield recorder
    finally:
        ObanInstrumentor().uninstrument()


def trace_id(span: ReadableSpan) -> str:
    """The id of a span's trace, as Oban stores it."""
    return format(span.context.trace_id, "032x")


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    """Whether a span continues another one, in its trace."""
    return (
        span.parent is not None
        and span.parent.span_id == parent.context.span_id
        and span.context.trace_id == parent.context.trace_id
    )


class FileExporter(SpanExporter):
    """Appends spans to a file, one a line."""

    def __init__(self, path: str) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with open(self._path, "a") as file:
            file.writelines(json.dumps(_described(span)) + "\n" for span in spans)
        return SpanExportResult.SUCCESS


def _described(span: ReadableSpan) -> dict[str, Any]:
    return {
        "name": span.name,
        "trace": trace_id(span),
        "id": span.context.span_id,
        "parent": None if span.parent is None else span.parent.span_id,
        "attributes": dict(span.attributes or {}),
    }


def read_spans(path: Path) -> list[dict[str, Any]]:
    """The spans in a file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
