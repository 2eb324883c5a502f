"""Every snippet of `docs/diagnosing.md` runs unchanged and has the documented effect."""

from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from oban import Oban
from tests.docs.stage import Page, Snippet, Stage
from tests.support.databases import SQLiteFactory

PAGE = Page("diagnosing.md")


@pytest.fixture
def url(sqlite_factory: SQLiteFactory) -> Iterator[URL]:
    made = sqlite_factory.create()
    yield made
    sqlite_factory.drop(made)


@pytest.fixture
def stage(oban: Oban) -> Stage:
    return Stage(oban)


@PAGE.shows("oban.stats()")
async def test_statistics_tell_the_state_of_queues(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.set("completed", job="scheduled", queue="mail")
    await stage.run(snippet)
    assert capsys.readouterr().out.splitlines() == ["mail idle 0 None", "0 0", "[] None"]


@PAGE.shows("count_limit=10_000")
async def test_statistics_count_up_to_a_limit(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.set("completed", queue="mail")
    await stage.run(snippet)
    assert capsys.readouterr().out.splitlines() == ["3 ()"]


def test_every_snippet_is_run_by_a_test() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets
