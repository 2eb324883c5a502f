"""What `docs/guides/sqlite.md` says about names and pools is so, and its code runs."""

import re

import pytest
from sqlalchemy import make_url

from oban import dialects
from tests.docs.snippets import fenced
from tests.support.processes import ROOT

PAGE = "docs/guides/sqlite.md"


async def test_only_the_job_outside_of_the_transaction_is_kept() -> None:
    (code,) = fenced(PAGE, "python")
    names: dict[str, object] = {}
    exec(compile(code, PAGE, "exec"), names)
    (job,) = await names["rolled_back"]()  # type: ignore[operator]
    assert job.worker == "app.Kept"


ROWS = re.findall(r"^\| (`sqlite:.*?) \| (.*) \|$", (ROOT / PAGE).read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("url", "kind"), [(url, kind) for urls, kind in ROWS for url in re.findall("`(.*?)`", urls)]
)
def test_the_table_names_files_and_databases_in_memory(url: str, kind: str) -> None:
    assert dialects.by_name("sqlite").is_memory(make_url(url)) == kind.startswith("in memory")


def test_the_table_is_complete() -> None:
    assert len(ROWS) == 4
