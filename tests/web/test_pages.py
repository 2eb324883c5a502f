"""Every page answers on an empty database."""

import pytest

from tests.support.web import Visitor


@pytest.mark.parametrize("path", ["/", "/jobs", "/jobs/new", "/queues", "/nodes", "/periodic"])
async def test_each_page_answers_without_any_jobs(visitor: Visitor, path: str) -> None:
    page = await visitor.page(path)
    assert page.css_first("h1") is not None


async def test_a_job_that_does_not_exist_is_a_page_with_the_status_404(visitor: Visitor) -> None:
    page = await visitor.page("/jobs/999", status=404)
    assert "There is no job 999." in page.css_first("h1").text()  # type: ignore[union-attr]
