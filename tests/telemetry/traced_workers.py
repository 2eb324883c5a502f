"""Workers with spans of their own, and a node in another process: `python -m tests.telemetry.traced_workers`.

The process, and the child processes of its jobs, write their spans to the file `OBAN_TEST_SPANS`.
"""

import asyncio
import os
import sys

from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from oban import Job, Oban, Worker
from oban.otel import ObanInstrumentor
from tests.support.tracing import FileExporter

if path := os.environ.get("OBAN_TEST_SPANS"):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(FileExporter(path)))
    trace.set_tracer_provider(provider)

tracer = trace.get_tracer(__name__)


class InChild(Worker, executor="process"):
    def process(self, job: Job) -> None:
        with tracer.start_as_current_span(
            "work", attributes={"customer": str(baggage.get_baggage("customer"))}
        ):
            pass


class OnLoop(Worker):
    async def process(self, job: Job) -> None:
        with tracer.start_as_current_span("work"):
            pass


async def main(url: str) -> None:
    ObanInstrumentor().instrument()
    async with Oban(url, queues={"default": 2}):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
