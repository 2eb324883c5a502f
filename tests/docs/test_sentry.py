"""`docs/guides/sentry.md`: what Sentry gets from the node of the page, through a transport that prints it."""

from pathlib import Path
from typing import Any

import pytest

from oban import Job
from tests.docs.log_tools import json_lines, run_jobs
from tests.docs.snippets import fenced
from tests.support.databases import SQLiteFactory
from tests.support.processes import ROOT

PAGE = "docs/guides/sentry.md"
#: Runs before the module of the page.
INIT = """
import functools, json
import sentry_sdk
from sentry_sdk.transport import Transport

class Printing(Transport):
    def capture_envelope(self, envelope):
        if (event := envelope.get_event()) is not None:
            print(json.dumps(event, default=str), flush=True)

sentry_sdk.init = functools.partial(sentry_sdk.init, transport=Printing)
"""


@pytest.fixture(scope="module")
def events(sqlite_factory: SQLiteFactory, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The events of a job that is retried, one that is discarded, and one that reports something itself."""
    url = sqlite_factory.create()
    jobs = [
        Job(worker="app.jobs.Charge", args={"cents": cents}, max_attempts=attempts)
        for cents, attempts in ((1, 5), (2, 1), (-3, 5))
    ]
    folder: Path = tmp_path_factory.mktemp("sentry")
    printed = run_jobs(
        PAGE,
        folder,
        url,
        jobs,
        lambda printed: printed.count('"logger": "oban.executor"') == 3,
        init=INIT,
        SENTRY_DSN="http://key@localhost/1",
    )
    sqlite_factory.drop(url)
    return json_lines(printed)


def of_job(events: list[dict[str, Any]], job_id: int) -> list[dict[str, Any]]:
    return [event for event in events if event["tags"]["job_id"] == job_id]


@pytest.mark.parametrize(("job_id", "level"), [(1, "warning"), (2, "error")])
def test_an_attempt_that_fails_is_one_event_with_the_exception_and_the_tags(
    events: list[dict[str, Any]], job_id: int, level: str
) -> None:
    [event] = of_job(events, job_id)
    assert (event["level"], event["logger"]) == (level, "oban.executor")
    [exception] = event["exception"]["values"]
    assert (exception["type"], exception["value"]) == ("ConnectionError", "the bank does not answer")
    frame = exception["stacktrace"]["frames"][-1]
    assert (frame["function"], frame["module"]) == ("process", "app.jobs")
    assert event["tags"] == {"job_id": job_id, "worker": "app.jobs.Charge", "queue": "default"}
    assert (event["extra"]["attempt"], event["extra"]["job_id"]) == (1, job_id)


def test_what_the_job_reports_itself_has_the_tags_as_well(events: list[dict[str, Any]]) -> None:
    own, end = of_job(events, 3)
    assert (own["logger"], own["logentry"]["message"]) == ("app", "a negative amount")
    assert own["tags"] == end["tags"]


def test_these_tests_use_every_fenced_block_of_the_page() -> None:
    assert (len(fenced(PAGE, "python")), len(fenced(PAGE, "console"))) == (3, 1)
    assert (ROOT / PAGE).read_text().count("```") == 8
