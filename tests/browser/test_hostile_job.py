"""A job that another program has filled with what breaks pages: nothing of it runs, and the layout holds."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, JobState
from tests.support.chromium import Visits
from tests.support.live_dashboard import LiveDashboard

SCRIPT = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>\"'><svg onload=alert(1)>"
#: Turns the direction of text round, hides it, and has no width.
MARKS = "\u202egnp.exe\u202c\u2066\u200b\u200f\x85\u2028"
HOSTILE = f"{SCRIPT}{MARKS}{{{{7*7}}}}{'W' * 120}"
QUEUE = f"<b>{MARKS}{SCRIPT[:60]}"


async def _insert(live: LiveDashboard) -> int:
    values = {
        "state": JobState.DISCARDED,
        "queue": QUEUE,
        "worker": HOSTILE[:255],
        "attempt": 1,
        "args": {"script": SCRIPT, HOSTILE: HOSTILE, "long": "x" * 4_000_000, "list": [[[SCRIPT]]]},
        "meta": {"note": HOSTILE, "progress": {"message": SCRIPT}, "recorded": True, "return": SCRIPT},
        "tags": [SCRIPT[:100], MARKS, *(f"tag-{number}-{'y' * 200}" for number in range(48))],
        "errors": [{"attempt": 1, "at": SCRIPT, "error": f"Traceback\n{HOSTILE}\n" * 200}],
        "attempted_by": [HOSTILE, SCRIPT],
    }
    async with AsyncSession(live.shop.oban.engine) as session:
        job_id = await session.scalar(insert(Job).values(values).returning(Job.id))
        await session.commit()
    assert job_id is not None
    return int(job_id)


@pytest.fixture(scope="module")
def hostile(live: LiveDashboard) -> Iterator[int]:
    """The id of the job."""
    job_id = live.run(_insert(live))
    yield job_id
    live.run(live.shop.oban.delete_job(job_id))


@pytest.mark.parametrize("width", [1280, 380])
@pytest.mark.parametrize(
    "path", ["/", "/jobs", "/jobs/{id}", "/jobs/{id}/delete", "/jobs/new?from={id}", "/queues"]
)
def test_a_hostile_job_is_text(visits: Visits, hostile: int, path: str, width: int) -> None:
    page = visits.page(path.format(id=hostile), viewport={"width": width, "height": 800})
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    assert page.evaluate("window.hacked") is None
    assert page.locator("#live script, #live img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # A page of megabytes would not answer within this time.
    assert page.evaluate("document.documentElement.outerHTML.length") < 1_500_000
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()


def test_a_hostile_job_is_text_without_scripts(visits: Visits, hostile: int) -> None:
    page = visits.page(f"/jobs/{hostile}", java_script_enabled=False)
    expect(page.locator("#args")).to_contain_text("<script>")
