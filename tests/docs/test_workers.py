"""Every snippet of `docs/guides/workers.md` runs unchanged and has the documented effect."""

from collections.abc import AsyncIterator, Iterator
from datetime import date
from typing import Any, Generic, TypeVar

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, JobState, Oban, Worker
from oban.errors import ConfigError, InvalidJob
from tests.docs.stage import Page, Snippet, Stage
from tests.support.jobs import reaches
from tests.support.options import FAST_POLLING
from tests.support.rows import delete_rows, lasting_url

PAGE = Page("guides/workers.md")
T = TypeVar("T")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture
async def stage(oban: Oban) -> AsyncIterator[Stage]:
    """A running node and the names of the first snippet about typed args."""
    await delete_rows(oban.engine)
    stage = Stage(oban)
    queues = {"default": 2, "media": 2, "mailers": 2}
    async with Oban(oban.engine, queues=queues, **FAST_POLLING):
        await stage.run(PAGE.snippets[1])
        yield stage


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return the lines printed since the last call."""
    return lambda: capsys.readouterr().out.splitlines()


async def completed(stage: Stage) -> list[Job]:
    """Wait until all jobs are completed; returns them."""
    return [await reaches(stage.oban, job, JobState.COMPLETED) for job in await stage.oban.list_jobs()]


@PAGE.shows("class Welcome(")
async def test_a_class_and_a_function_are_workers(stage: Stage, snippet: Snippet, printed: Any) -> None:
    await stage.run(snippet)
    await completed(stage)
    assert sorted(printed()) == ["reminding user 7", "welcome, user 7"]


@PAGE.shows("class Report(")
async def test_the_worker_of_the_first_snippet_is_defined(stage: Stage, snippet: Snippet) -> None:
    assert "Report" in stage.names
    assert snippet.line < PAGE.snippets[2].line


@PAGE.shows("await Report.enqueue(")
async def test_args_can_be_a_dataclass(stage: Stage, snippet: Snippet, printed: Any) -> None:
    await stage.run(snippet)
    (job,) = await completed(stage)
    PAGE.says('`{"account": 7, "day": "2026-01-31", "formats": ["pdf"]}`')
    stored = {"account": 7, "day": "2026-01-31", "formats": ["pdf"]}
    assert (job.args, job.queue) == (stored, "media")
    (line,) = printed()
    assert line.startswith("2026 ('pdf',) {'")


@PAGE.shows("class Import(")
async def test_args_can_be_a_typed_dict(stage: Stage, snippet: Snippet, printed: Any) -> None:
    await stage.run(snippet)
    (job,) = await completed(stage)
    assert job.args == {"path": "accounts.csv", "since": "2026-01-01"}
    assert printed() == ["accounts.csv 2026"]


@PAGE.shows("class Ship:")
async def test_a_model_is_stored_under_its_aliases(stage: Stage, snippet: Snippet, printed: Any) -> None:
    await stage.run(snippet)
    (job,) = await completed(stage)
    assert job.args == {"orderNumber": 5}
    assert printed() == ["5"]
    with pytest.raises(InvalidJob, match="orderNumber: Input should be greater than 0"):
        stage.names["Ship"].new({"orderNumber": 0})


@PAGE.shows("except InvalidJob")
async def test_an_error_names_the_field_and_not_the_value(
    stage: Stage, snippet: Snippet, printed: Any
) -> None:
    await stage.run(snippet)
    (line,) = printed()
    assert line.endswith("do not fit ReportArgs: account: Input should be a valid integer, unable to parse"
                         " string as an integer")  # fmt: skip
    assert await stage.oban.list_jobs() == []


async def test_the_sentences_about_other_args_hold(stage: Stage) -> None:
    report, args = stage.names["Report"], stage.names["ReportArgs"]
    PAGE.says("fields that the type does not have are dropped")
    made = report.new({"account": "7", "day": "2026-01-31", "other": 1})
    assert made.args == {"account": 7, "day": "2026-01-31", "formats": ["pdf"]}
    PAGE.says("`self.args_of(job)` returns the object elsewhere")
    assert report().args_of(made) == args(7, date(2026, 1, 31))
    PAGE.says("A dataclass with a string in an `int` field")
    with pytest.raises(InvalidJob, match="would not come back"):
        report.new(args("7", date(2026, 1, 31)))
    PAGE.says("a generic base can leave it open: `class Base(Worker[T], Generic[T])`")

    class Base(Worker[T], Generic[T]):
        pass

    class Concrete(Base[args]):  # type: ignore[valid-type]
        async def process(self, job: Job) -> None: ...

    assert Concrete.new(args(7, date(2026, 1, 31))).args["account"] == 7
    PAGE.says("Whether the annotation of `args` matches the declared type is checked when")
    with pytest.raises(ConfigError, match="gets its args as ReportArgs, not int"):

        class Wrong(Worker[args]):  # type: ignore[valid-type]
            async def process(self, job: Job, args: int) -> None: ...


async def test_stored_args_that_do_not_fit_fail_the_attempt_with_the_reason(stage: Stage) -> None:
    PAGE.says("Then the attempt fails, `job.errors` says which field is wrong and why")
    name = stage.names["Report"].worker_name
    job = await stage.oban.enqueue(Job(worker=name, queue="media", args={"account": 7}))
    row = await reaches(stage.oban, job, JobState.RETRYABLE)
    assert row.errors[-1]["error"] == f"InvalidJob: args of {name} do not fit ReportArgs: day: Field required"


@PAGE.shows("async def send_email(")
async def test_functions_are_enqueued_as_they_are_called(
    stage: Stage, snippet: Snippet, printed: Any
) -> None:
    stage.names |= {"AsyncSession": AsyncSession, "engine": stage.oban.engine}
    await stage.run(snippet)
    first, later, third = sorted(await stage.oban.list_jobs(), key=lambda job: job.id)
    for job in (first, third):
        await reaches(stage.oban, job, JobState.COMPLETED)
    assert later.state is JobState.SCHEDULED
    assert printed() == ["a@b.c Hi"] * 2


@PAGE.shows("class SendInvoice(")
async def test_a_renamed_worker_runs_old_jobs(stage: Stage, snippet: Snippet, printed: Any) -> None:
    await stage.run(snippet)
    await reaches(stage.oban, await stage.oban.enqueue(Job(worker="app.mail.Invoice")), JobState.COMPLETED)
    assert printed() == ["sent app.mail.Invoice"]


def test_every_snippet_is_run_by_a_test() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets
