"""Everybody can use the pages: axe-core finds nothing serious, and the keyboard reaches everything."""

from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from oban import Job, JobState
from tests.support import axe
from tests.support.chromium import Visits
from tests.support.live_dashboard import LiveDashboard
from tests.support.shop_workers import SendNewsletter

PAGES = ("/", "/jobs", "/jobs?q=state:discarded", "/jobs/new", "/queues", "/nodes", "/periodic")
#: Both widths and both themes. `tests/web/test_contrast.py` compares the colors of each theme.
LOOKS: tuple[tuple[int, Literal["light", "dark"]], ...] = ((1280, "light"), (380, "dark"))
#: What has the focus, and whether one sees that it has: an outline, or a shadow or line in its place.
_FOCUS = """() => {
    const element = document.activeElement;
    if (element === document.body) return null;
    const style = getComputedStyle(element);
    const seen = style.outlineStyle !== "none" || style.boxShadow !== "none";
    const box = element.getBoundingClientRect();
    const path = [];
    for (let each = element; each.parentElement; each = each.parentElement)
        path.unshift([...each.parentElement.children].indexOf(each));
    const shown = box.width > 0 && box.height > 0;
    return {path: path.join("."), what: element.outerHTML.slice(0, 200), seen, shown};
}"""


def check_looks(page: Page) -> None:
    """Expect no serious violation: wide and light, narrow and dark."""
    for width, scheme in LOOKS:
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        assert axe.violations(page) == [], (width, scheme)


@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_no_serious_violation_on_a_page(visits: Visits, path: str) -> None:
    check_looks(visits.page(path))


@pytest.mark.parametrize("state", [JobState.EXECUTING, JobState.DISCARDED, JobState.AVAILABLE])
def test_axe_finds_no_serious_violation_on_the_page_of_a_job(
    visits: Visits, live: LiveDashboard, state: JobState
) -> None:
    job = live.run(live.shop.job(Job.state == state))
    check_looks(visits.page(f"/jobs/{job.id}"))


def test_axe_finds_no_serious_violation_when_a_job_is_edited_or_deleted(
    visits: Visits, live: LiveDashboard
) -> None:
    job = live.run(live.shop.job(Job.queue == "newsletter"))
    for action in ("edit", "delete"):
        check_looks(visits.page(f"/jobs/{job.id}/{action}"))


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/bulk?q=queue:newsletter&action=cancel&all=1",
        "/jobs/bulk?q=queue:newsletter&action=update&all=1",
        "/periodic/one?name=reports: sales",
        "/periodic/edit?name=reports: sales",
        "/periodic/new",
        "/queues/one?name=reports",
    ],
)
def test_axe_finds_no_serious_violation_on_a_page_of_one_thing(visits: Visits, path: str) -> None:
    check_looks(visits.page(path))


def test_axe_finds_no_serious_violation_on_the_result_of_a_bulk_action(
    visits: Visits, live: LiveDashboard
) -> None:
    job = live.run(live.shop.oban.enqueue(SendNewsletter.new({"letter": "test"}, tags=["test:axe"])))
    page = visits.page(f"/jobs/bulk?id={job.id}&action=cancel")
    page.get_by_role("button", name="Cancel 1 job").click()
    expect(page.locator("#bulk [role=status]")).to_contain_text("1 job was cancelled.")
    check_looks(page)


@pytest.mark.parametrize("keys", ["?", "Control+k"])
def test_axe_finds_no_serious_violation_in_an_open_dialog(visits: Visits, keys: str) -> None:
    page = visits.page("/queues")
    page.keyboard.press(keys)
    expect(page.locator("dialog[open]")).to_be_visible()
    check_looks(page)


def test_axe_finds_no_serious_violation_on_the_page_of_an_error(visits: Visits) -> None:
    check_looks(visits.page("/jobs/999999"))
    visits.expect_problem("404")


@pytest.mark.parametrize("path", PAGES)
def test_the_keyboard_goes_through_a_page_visibly_and_out_again(visits: Visits, path: str) -> None:
    page = visits.page(path)
    reached: list[str] = []
    while len(reached) < 400:
        page.keyboard.press("Tab")
        focus = page.evaluate(_FOCUS)
        if focus is None or (reached and focus["path"] == reached[0]):
            break
        assert focus["seen"], focus["what"]
        assert focus["shown"], focus["what"]
        reached.append(focus["path"])
    else:
        pytest.fail(f"the focus never leaves the page: {focus['what']}")
    assert len(reached) > 8
