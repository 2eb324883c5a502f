"""The list of jobs: tabs, search, pages, selection, and changes of many jobs."""

import re
import uuid

import pytest
from playwright.sync_api import expect
from sqlalchemy import select

from oban import Job, JobState, filters
from tests.support.chromium import Visits
from tests.support.live_dashboard import LiveDashboard
from tests.support.shop_workers import SendNewsletter


@pytest.fixture
def tag(live: LiveDashboard) -> str:
    """The tag of 30 jobs that wait, which only one test changes."""
    name = f"test:{uuid.uuid4().hex[:8]}"
    live.run(live.shop.oban.enqueue_many(SendNewsletter.new({"n": n}, tags=[name]) for n in range(30)))
    return name


def states(live: LiveDashboard, tag: str) -> list[JobState]:
    """The states of the jobs with a tag, the newest first."""
    jobs = live.run(live.shop.oban.list_jobs(select(Job).where(filters.tags(tag)).order_by(Job.id.desc())))
    return [job.state for job in jobs]


def test_a_tab_shows_the_jobs_of_its_state_and_is_in_the_address(visits: Visits) -> None:
    page = visits.page("/jobs")
    page.get_by_role("navigation", name="States").get_by_role("link", name="discarded").click()
    expect(page).to_have_url(re.compile("state:discarded|state%3Adiscarded"))
    expect(page.locator("#rows tr").first).to_contain_text("discarded")
    shown = page.locator("#rows .state").all_text_contents()
    assert {text.strip() for text in shown} == {"discarded"}


def test_suggestions_are_chosen_by_keyboard(visits: Visits) -> None:
    page = visits.page("/jobs")
    page.keyboard.press("/")
    field = page.get_by_role("combobox", name="Search jobs")
    expect(field).to_be_focused()
    page.keyboard.type("queue:pay")
    expect(page.get_by_role("option", name="payments")).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(field).to_have_value(re.compile("queue:payments"))
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("payments"))
    expect(page.locator("#rows tr").first).to_contain_text("shop.ChargeCard")


def test_a_search_by_a_path_of_args_finds_one_job(visits: Visits) -> None:
    page = visits.page("/jobs?q=args.order:80007")
    expect(page.locator("#rows tr, #more-rows tr")).to_have_count(1)
    expect(page.locator("table")).to_contain_text("80007")


def test_a_search_that_cannot_be_read_says_why(visits: Visits) -> None:
    page = visits.page("/jobs?q=state:nonsense")
    expect(page.locator("#live")).to_contain_text("nonsense")
    expect(page.get_by_role("combobox", name="Search jobs")).to_have_value("state:nonsense")
    visits.expect_problem("400")


def test_pages_go_on_without_leaving_a_job_out(visits: Visits, tag: str) -> None:
    page = visits.page(f"/jobs?q=tag:{tag}")
    first = page.locator("#rows tr td[data-label=Job]").all_text_contents()
    page.get_by_role("link", name="Older").click()
    expect(page.locator("#rows tr")).to_have_count(30 - len(first))
    second = page.locator("#rows tr td[data-label=Job]").all_text_contents()
    assert len({*first, *second}) == 30
    expect(page.get_by_role("link", name="Newer")).to_be_visible()


def test_jobs_of_a_page_are_cancelled_after_a_preview(visits: Visits, live: LiveDashboard, tag: str) -> None:
    page = visits.page(f"/jobs?q=tag:{tag}")
    for row in range(3):
        page.locator("#rows input[name=id]").nth(row).check()
    expect(page.locator("#selected-count")).to_have_text("3 selected.")
    page.locator("#selection button[value=cancel]").click()
    expect(page.locator("#live")).to_contain_text(re.compile(r"3\b.*jobs", re.S))
    assert JobState.CANCELLED not in states(live, tag)
    page.locator("#live form[method=post] button").first.click()
    expect(page.locator("#content")).to_contain_text(re.compile("cancelled", re.I))
    expect(page.locator("#content")).to_contain_text(re.compile(r"\b3\b"))
    assert states(live, tag) == [JobState.CANCELLED] * 3 + [JobState.AVAILABLE] * 27


@pytest.mark.parametrize(("action", "state"), [("cancel", JobState.CANCELLED), ("delete", None)])
def test_all_jobs_of_a_filter_are_changed_beyond_the_page(
    visits: Visits, live: LiveDashboard, tag: str, action: str, state: JobState | None
) -> None:
    page = visits.page(f"/jobs?q=tag:{tag}")
    page.locator("#all-matching").check()
    page.locator(f"#selection button[value={action}]").click()
    expect(page.locator("#live")).to_contain_text("30")
    if state is None:
        # What cannot be undone has to be typed.
        page.get_by_label("Type delete to confirm").fill("delete")
    page.locator("#live form[method=post] button").first.click()
    expect(page.locator("#content")).to_contain_text(re.compile(rf"{action}", re.I))
    expect(page.locator("#content")).to_contain_text("30")
    assert states(live, tag) == ([] if state is None else [state] * 30)


def test_jobs_of_a_filter_are_updated_with_a_preview_of_each_change(
    visits: Visits, live: LiveDashboard, tag: str
) -> None:
    page = visits.page(f"/jobs/bulk?q=tag:{tag}&action=update&all=1")
    page.get_by_label("Priority").fill("4")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#live")).to_contain_text("priority: 0 → 4")
    page.get_by_role("button", name="Update 30 jobs").click()
    expect(page.locator("#bulk [role=status]")).to_contain_text("30 jobs were updated.")
    jobs = live.run(live.shop.oban.list_jobs(select(Job).where(filters.tags(tag))))
    assert {job.priority for job in jobs} == {4}


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "plain"])
def test_cancelled_jobs_of_a_filter_are_retried(
    visits: Visits, live: LiveDashboard, tag: str, scripts: bool
) -> None:
    live.run(live.shop.oban.cancel_many_jobs(select(Job).where(filters.tags(tag))))
    page = visits.page(f"/jobs/bulk?q=tag:{tag}&action=retry&all=1", java_script_enabled=scripts)
    while not scripts and page.get_by_role("link", name="Go on counting").count():
        page.get_by_role("link", name="Go on counting").click()
    expect(page.locator("#bulk [role=status]")).to_contain_text("30 jobs will be retried.")
    page.get_by_role("button", name="Retry 30 jobs").click()
    while not scripts and page.get_by_role("button", name="Go on").count():
        page.get_by_role("button", name="Go on").click()
    expect(page.locator("#bulk [role=status]")).to_contain_text("30 jobs were retried.")
    assert states(live, tag) == [JobState.AVAILABLE] * 30


def test_a_user_who_may_only_look_cannot_select(visits: Visits) -> None:
    page = visits.page("/jobs", user="viewer")
    expect(page.locator("#rows tr").first).to_be_visible()
    expect(page.locator("#live input[type=checkbox]")).to_have_count(0)


def test_new_jobs_appear_and_a_selection_stays(visits: Visits, live: LiveDashboard, tag: str) -> None:
    page = visits.page(f"/jobs?q=tag:{tag}")
    expect(page.locator("#pulse")).to_have_text("Live")
    page.locator("#rows input[name=id]").nth(1).check()
    chosen = page.locator("#rows input[name=id]:checked").get_attribute("value")
    job = live.run(live.shop.oban.enqueue(SendNewsletter.new({}, tags=[tag])))
    expect(page.locator(f"#job-{job.id}")).to_be_visible()
    expect(page.locator(f"#select-{chosen}")).to_be_checked()
