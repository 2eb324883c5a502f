"""What the command palette finds."""

from typing import Any

import pytest

from oban import Job, Oban
from tests.support.web import Visitor


async def found(visitor: Visitor, query: str) -> list[dict[str, Any]]:
    response = await visitor.get("/palette", params={"q": query})
    assert response.status_code == 200
    results: list[dict[str, Any]] = response.json()["results"]
    return results


@pytest.mark.parametrize("query", ["42", "job 42", "Job #42", " job42 "])
async def test_a_job_is_found_by_its_id(visitor: Visitor, query: str) -> None:
    assert await found(visitor, query) == [{"label": "Job 42", "hint": "Job", "href": "/jobs/42"}]


async def test_queues_and_workers_are_found_by_a_part_of_their_name(oban: Oban, visitor: Visitor) -> None:
    await oban.enqueue_many(
        [Job(worker="app.Mail", queue="mailing"), Job(worker="app.Report", queue="default")]
    )
    labels = [(each["hint"], each["label"]) for each in await found(visitor, "MAIL")]
    assert labels == [("Queue", "mailing"), ("Worker", "app.Mail")]


@pytest.mark.parametrize("query", ["", " ", "nothing", "9" * 5000, "%", "٤٢", "\x00"])
async def test_any_query_is_answered(visitor: Visitor, query: str) -> None:
    assert await found(visitor, query) == []
