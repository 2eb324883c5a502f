"""Every snippet of `docs/guides/redaction.md` runs unchanged and prints what the page says."""

import pytest
from sqlalchemy import URL

from oban import JobState, Oban, Worker
from oban.testing import drain_queue
from tests.docs.stage import Page, Stage

PAGE = Page("guides/redaction.md")

pytestmark = pytest.mark.usefixtures("own_registry")


@pytest.fixture
def url(sqlite_url: URL) -> URL:
    return sqlite_url


async def test_the_page_from_its_first_to_its_last_snippet(
    oban: Oban, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(oban)
    stage.names |= {"__name__": "app", "Worker": Worker}
    enqueue, show, meta = PAGE.snippets
    await stage.run(enqueue)
    await drain_queue(oban=oban, with_safety=True)
    await stage.run(show)
    assert capsys.readouterr().out in PAGE.text
    await stage.run(meta)
    assert capsys.readouterr().out in PAGE.text
    assert stage.names["failed"].state == JobState.DISCARDED
