"""`docs/guides/structlog.md`: a job's lines and Oban's have the job, also under `oban start`."""

import json
from pathlib import Path
from typing import Any

import pytest

from oban import Job
from tests.docs.log_tools import json_lines, run_jobs
from tests.docs.snippets import fenced
from tests.support.databases import SQLiteFactory
from tests.support.processes import ROOT

PAGE = "docs/guides/structlog.md"


@pytest.fixture(scope="module")
def lines(sqlite_factory: SQLiteFactory, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the node of the page prints about two jobs."""
    url = sqlite_factory.create()
    jobs = [
        Job(worker="app.jobs.Charge", args={"cents": 100}, meta={"request_id": f"r-{number}"}, max_attempts=5)
        for number in (1, 2)
    ]
    folder: Path = tmp_path_factory.mktemp("structlog")
    printed = run_jobs(PAGE, folder, url, jobs, lambda printed: printed.count("failed, attempt 1") == 2)
    sqlite_factory.drop(url)
    # Nothing but JSON, and nothing twice, once the module has been imported.
    rest = [line for line in printed.splitlines() if not line.startswith("{")]
    assert [line for line in rest if "oban.executor" in line or "stopped" in line] == []
    assert printed.count('"stopped"') == 1
    return json_lines(printed)


@pytest.mark.parametrize("job_id", [1, 2])
def test_the_lines_of_a_job_and_of_its_end_are_those_of_the_page(
    lines: list[dict[str, Any]], job_id: int
) -> None:
    of_job = [line for line in lines if line.get("job_id") == job_id]
    shown = [json.loads(line) for line in "".join(fenced(PAGE, "json")).splitlines()]
    assert len(of_job) == len(shown) == 2
    for line, example in zip(of_job, shown, strict=True):
        assert line.keys() == example.keys()
        assert line["request_id"] == f"r-{job_id}"
        for same in ("worker", "logger", "level", "cents", "queue", "attempt", "max_attempts", "state"):
            assert line.get(same) == example.get(same)
    assert of_job[1]["exception"].endswith("ConnectionError: the bank does not answer")


def test_records_that_are_not_about_a_job_have_none(lines: list[dict[str, Any]]) -> None:
    [line] = [line for line in lines if line["event"] == "stopped"]
    assert (line["logger"], "job_id" in line) == ("oban", False)


def test_these_tests_use_every_fenced_block_of_the_page() -> None:
    assert (len(fenced(PAGE, "python")), len(fenced(PAGE, "console")), len(fenced(PAGE, "json"))) == (2, 1, 1)
    assert (ROOT / PAGE).read_text().count("```") == 8
