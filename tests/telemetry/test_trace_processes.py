"""One trace from an HTTP request to a job, through several processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.trace import SpanKind
from sqlalchemy import URL

from oban import JobState, Oban, Worker
from tests.support.jobs import reaches
from tests.support.options import BRIEF
from tests.support.processes import ROOT
from tests.support.tracing import Recorder, is_child, read_spans, recording, trace_id
from tests.support.waiting import eventually
from tests.telemetry.traced_workers import InChild, OnLoop

REMOTE = "0af7651916cd43dd8448eb211c80319c"
HEADERS = {"traceparent": f"00-{REMOTE}-b7ad6b7169203331-01", "baggage": "customer=7"}


def application(oban: Oban, recorder: Recorder, worker: type[Worker]) -> FastAPI:
    """An application whose requests have a span, as an instrumentation of FastAPI gives them one."""
    app = FastAPI()

    @app.middleware("http")
    async def with_span(request: Request, call_next: Any) -> Any:
        token = context.attach(propagate.extract(dict(request.headers)))
        try:
            with recorder.tracer.start_as_current_span("POST /orders", kind=SpanKind.SERVER):
                return await call_next(request)
        finally:
            context.detach(token)

    @app.post("/orders")
    async def order() -> dict[str, int]:
        return {"job": (await oban.enqueue(worker.new())).id}

    return app


async def request(app: FastAPI) -> int:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post("/orders", headers=HEADERS)
    return int(answer.json()["job"])


@contextmanager
def node(url: URL, spans: Path) -> Iterator[None]:
    command = [
        sys.executable,
        "-m",
        "tests.telemetry.traced_workers",
        url.render_as_string(hide_password=False),
    ]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OBAN_TEST_SPANS": str(spans)}) as process:
        try:
            yield
        finally:
            process.kill()


async def test_a_trace_leads_from_a_request_to_the_job_in_one_process(url: URL) -> None:
    with recording() as recorder:
        async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
            job_id = await request(application(oban, recorder, OnLoop))
            await reaches(oban, job_id, JobState.COMPLETED)
            (attempt,) = await oban.list_attempts(job_id)
    server, enqueue, process = (
        recorder.named(name)[0] for name in ("POST /orders", "enqueue default", "process default")
    )
    assert is_child(enqueue, server)
    assert is_child(process, enqueue)
    assert trace_id(process) == REMOTE == attempt.trace


@pytest.mark.parametrize("worker", [OnLoop, pytest.param(InChild, marks=pytest.mark.slow)])
async def test_a_trace_leads_to_another_process_and_to_the_child_process_of_the_job(
    worker: type[Worker], url: URL, tmp_path: Path
) -> None:
    spans = tmp_path / "spans"
    with recording() as recorder, node(url, spans):
        async with Oban(url) as oban:
            job_id = await request(application(oban, recorder, worker))
            await reaches(oban, job_id, JobState.COMPLETED, timeout=30)
            (attempt,) = await oban.list_attempts(job_id)
        await eventually(lambda: len(read_spans(spans)) == 2)
    (enqueue,) = recorder.named("enqueue default")
    work, process = read_spans(spans)
    assert (work["name"], process["name"]) == ("work", "process default")
    assert process["parent"] == enqueue.context.span_id
    assert work["parent"] == process["id"]
    assert {work["trace"], process["trace"], attempt.trace} == {REMOTE}
    if worker is InChild:
        assert work["attributes"] == {"customer": "7"}


async def test_the_job_of_a_child_process_runs_without_opentelemetry_there(url: URL) -> None:
    # The child process records nothing, as nobody has set a provider there.
    with recording() as recorder:
        async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
            job = await oban.enqueue(InChild.new())
            await reaches(oban, job, JobState.COMPLETED, timeout=30)
    assert [span.name for span in recorder.spans] == ["enqueue default", "process default"]
    assert not trace.get_current_span().get_span_context().is_valid
    assert baggage.get_all() == {}
