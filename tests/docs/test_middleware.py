"""Every snippet of `docs/guides/middleware.md` runs unchanged and has the documented effect."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL

from oban import CallNext, Job, JobState, Oban, Snooze, Worker
from oban.errors import ConfigError
from tests.docs.stage import Page, Snippet, Stage
from tests.support.jobs import reaches
from tests.support.options import FAST_POLLING
from tests.support.rows import delete_rows, lasting_url

PAGE = Page("guides/middleware.md")
# The nodes of other pages have nothing for the workers of this one.
pytestmark = pytest.mark.usefixtures("own_registry")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture
async def stage(oban: Oban) -> Stage:
    """The middleware and workers of the page."""
    await delete_rows(oban.engine)
    stage = Stage(oban)
    for snippet in PAGE.snippets:
        if "middleware=[timing]" not in snippet.code and "@job" not in snippet.code:
            await stage.run(snippet)
    return stage


async def ended(stage: Stage, job: Job, *states: JobState, **options: Any) -> Job:
    """Run a job on a node with these options until it is in one of the states."""
    async with Oban(stage.oban.engine, queues={"default": 2}, **FAST_POLLING, **options) as oban:
        return await reaches(oban, await oban.enqueue(job), *states)


@PAGE.shows("async def timing")
@pytest.mark.parametrize("name", ["Plain", "Threaded"])
async def test_a_job_is_timed(
    stage: Stage, snippet: Snippet, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Plain(Worker):
        async def process(self, job: Job) -> None: ...

    class Threaded(Worker):
        def process(self, job: Job) -> None: ...

    cls = {"Plain": Plain, "Threaded": Threaded}[name]
    await ended(stage, cls.new(), JobState.COMPLETED, middleware=[stage.names["timing"]])
    assert capsys.readouterr().out == f"{cls.worker_name} took 0 s\n"


@PAGE.shows("middleware=[timing]")
async def test_an_instance_takes_middleware(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    assert stage.names["oban"].options.middleware == (stage.names["timing"],)


@PAGE.shows("def with_tenant")
async def test_a_tenant_is_set(stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]) -> None:
    job = stage.names["Publish"].new(meta={"tenant": "acme"})
    await ended(stage, job, JobState.COMPLETED, middleware=[stage.names["with_tenant"]])
    assert capsys.readouterr().out == "publishing for acme\n"


@PAGE.shows("class Publish(")
async def test_an_error_becomes_an_outcome(stage: Stage, snippet: Snippet) -> None:
    await ended(stage, stage.names["Publish"].new({"busy": True}), JobState.SCHEDULED)


@PAGE.shows("async def only_known_tenants")
async def test_an_outcome_is_decided_without_the_job(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    job = stage.names["Publish"].new(meta={"tenant": "unknown"})
    row = await ended(stage, job, JobState.CANCELLED, middleware=[stage.names["only_known_tenants"]])
    assert row.errors[0]["error"] == "this tenant has gone"
    assert capsys.readouterr().out == ""


async def test_a_missing_return_fails_the_attempt(stage: Stage) -> None:
    PAGE.says("and the middleware returns None: `return` is missing")

    async def forgets(job: Job, call_next: CallNext) -> Any:
        await call_next(job)

    class Snoozes(Worker):
        async def process(self, job: Job) -> Snooze:
            return Snooze(60)

    row = await ended(stage, Snoozes.new(), JobState.RETRYABLE, middleware=[forgets])
    assert "forgets returned None instead of what call_next returned" in row.errors[0]["error"]


@PAGE.shows("async def lifespan(")
async def test_jobs_share_what_the_lifespan_yields(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stage.names["oban"].options.lifespan is stage.names["lifespan"]
    fetch = stage.names["Fetch"]
    async with Oban(
        stage.oban.engine, queues={"crawl": 2}, lifespan=stage.names["lifespan"], **FAST_POLLING
    ) as oban:
        for url in ("one", "two"):
            await reaches(oban, await oban.enqueue(fetch.new({"url": url})), JobState.COMPLETED)
    assert capsys.readouterr().out == "the page one\nthe page two\nclosed after 2 requests\n"


@PAGE.shows("class Fetch(")
async def test_a_node_without_the_lifespan_does_not_start(stage: Stage, snippet: Snippet) -> None:
    PAGE.says("A node does not start (`ConfigError`) if a worker of one of its queues needs something")
    oban = Oban(stage.oban.engine, queues={"crawl": 2})
    with pytest.raises(ConfigError, match="Fetch: the lifespan of this node yields nothing"):
        await oban.start()
    await oban.stop()


@PAGE.shows("async def fetch(")
async def test_a_function_takes_what_the_lifespan_yields(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Oban(
        stage.oban.engine, queues={"crawl": 2}, lifespan=stage.names["lifespan"], **FAST_POLLING
    ) as oban:
        await stage.run(snippet)
        (job,) = await oban.list_jobs()
        await reaches(oban, job, JobState.COMPLETED)
        PAGE.says('`await fetch("https://example.com/", http=Http())`')
        await stage.names["fetch"]("directly", http=stage.names["Http"]())
    out = "the page https://example.com/\nthe page directly\nclosed after 1 requests\n"
    assert capsys.readouterr().out == out


def test_every_snippet_of_the_page_is_run() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets
