"""The page of a job, and what can be done there."""

import re
from typing import Any

from playwright.sync_api import Page, expect

from oban import Job, JobState
from tests.support.chromium import Visits
from tests.support.live_dashboard import LiveDashboard
from tests.support.shop_workers import ResizeImages, SendNewsletter


def waiting(live: LiveDashboard, **values: Any) -> Job:
    """A job of its own for a test, in a queue that is paused."""
    return live.run(live.shop.oban.enqueue(SendNewsletter.new({"letter": "test"}, **values)))


def stored(live: LiveDashboard, job: Job) -> Job | None:
    return live.run(live.shop.oban.get_job(job.id))


def expect_message(page: Page, text: str | re.Pattern[str]) -> None:
    expect(page.locator("#flash")).to_contain_text(text)


def test_a_failed_job_shows_each_attempt_and_its_traceback(visits: Visits, live: LiveDashboard) -> None:
    job = live.run(live.shop.job(Job.state == JobState.DISCARDED))
    page = visits.page(f"/jobs/{job.id}")
    timeline = page.locator("#timeline")
    for number in (1, 2, 3):
        expect(timeline.get_by_text(f"Attempt {number}", exact=True)).to_be_visible()
    expect(timeline.locator("pre").first).to_contain_text("PaymentDeclined")
    expect(page.locator("#args")).to_contain_text("[redacted]")
    expect(page.locator("body")).not_to_contain_text("4111")


def test_a_traceback_can_be_copied(visits: Visits, live: LiveDashboard) -> None:
    job = live.run(live.shop.job(Job.state == JobState.DISCARDED))
    page = visits.page(f"/jobs/{job.id}", permissions=["clipboard-read", "clipboard-write"])
    page.locator("#timeline").get_by_role("button", name="Copy").first.click()
    expect(page.locator("#toasts")).to_contain_text("Copied.")
    assert "PaymentDeclined" in page.evaluate("navigator.clipboard.readText()")


def test_an_executing_job_is_cancelled_after_a_confirmation(visits: Visits, live: LiveDashboard) -> None:
    job = live.run(live.shop.oban.enqueue(ResizeImages.new({"album": 1}, queue="default")))
    page = visits.page(f"/jobs/{job.id}")
    expect(page.locator("h1 + .state")).to_have_text("executing")
    page.get_by_role("button", name="Cancel", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"Cancel job {job.id}?")
    dialog.locator("#confirm-yes").click()
    expect_message(page, "cancelled")
    # Its worker stops at its own time, and the page shows it without being loaded again.
    expect(page.locator("h1 + .state")).to_have_text("cancelled")
    expect(page.locator("#timeline")).to_contain_text("Attempt 1")


def test_a_confirmation_that_is_refused_changes_nothing(visits: Visits, live: LiveDashboard) -> None:
    job = live.run(live.shop.job(Job.state == JobState.EXECUTING))
    page = visits.page(f"/jobs/{job.id}")
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    found = stored(live, job)
    assert found is not None
    assert found.state == JobState.EXECUTING


def test_a_waiting_job_is_cancelled_retried_and_deleted(visits: Visits, live: LiveDashboard) -> None:
    job = waiting(live)
    page = visits.page(f"/jobs/{job.id}")
    expect(page.locator("#why")).to_contain_text("paused")
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.locator("h1 + .state")).to_have_text("cancelled")
    page.get_by_role("button", name="Retry now").click()
    expect(page.locator("h1 + .state")).to_have_text("available")
    page.get_by_role("link", name="Delete…").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Delete job {job.id}?")
    page.get_by_role("button", name="Delete").click()
    expect(page).to_have_url(re.compile("/jobs$"))
    assert stored(live, job) is None
    # The page that was left may have refreshed itself once more.
    visits.allow("404")


def test_a_job_is_run_again_as_another_job(visits: Visits, live: LiveDashboard) -> None:
    job = waiting(live)
    page = visits.page(f"/jobs/{job.id}")
    page.get_by_role("button", name="Enqueue a copy").click()
    expect(page.locator("#flash")).to_be_visible()
    again = live.run(live.shop.job(Job.worker == "shop.SendNewsletter"))
    assert again.id > job.id
    assert again.args == {"letter": "test"}


def test_an_edit_with_a_wrong_value_says_where_and_then_saves(visits: Visits, live: LiveDashboard) -> None:
    job = waiting(live)
    page = visits.page(f"/jobs/{job.id}/edit")
    page.get_by_label("Priority").fill("12")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Priority")).to_have_attribute("aria-invalid", "true")
    # What was entered is still there.
    expect(page.get_by_label("Priority")).to_have_value("12")
    page.get_by_label("Args").fill('{"letter": ')
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Args")).to_have_attribute("aria-invalid", "true")
    visits.expect_problem("status of 4")
    page.get_by_label("Priority").fill("3")
    page.get_by_label("Args").fill('{"letter": "edited"}')
    page.get_by_role("button", name="Review changes").click()
    expect(page.locator("#review")).to_contain_text("edited")
    visits.allow("status of 4")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("h1")).to_have_text(f"Job {job.id}")
    found = stored(live, job)
    assert found is not None
    assert (found.priority, found.args) == (3, {"letter": "edited"})


def test_a_job_is_changed_without_scripts(visits: Visits, live: LiveDashboard) -> None:
    job = waiting(live)
    page = visits.page(f"/jobs/{job.id}", java_script_enabled=False)
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect_message(page, "cancelled")
    page.get_by_role("button", name="Retry now").click()
    expect(page.locator("h1 + .state")).to_have_text("available")


def test_a_user_who_may_only_look_sees_no_action_and_can_send_none(
    visits: Visits, live: LiveDashboard
) -> None:
    job = waiting(live)
    page = visits.page(f"/jobs/{job.id}", user="viewer")
    expect(page.locator("#live form[method=post]")).to_have_count(0)
    status = page.evaluate(
        """async path => {
            const token = document.querySelector("meta[name=csrf-token]").content;
            const answer = await fetch(path, {method: "POST", headers: {"X-CSRF-Token": token}});
            return answer.status;
        }""",
        f"/jobs/{job.id}/cancel",
    )
    assert status == 403
    visits.expect_problem("403")
    found = stored(live, job)
    assert found is not None
    assert found.state == JobState.AVAILABLE


def test_hidden_fields_are_on_no_part_of_the_page(visits: Visits, live: LiveDashboard) -> None:
    job = live.run(live.shop.job(Job.state == JobState.DISCARDED))
    page = visits.page(f"/jobs/{job.id}", user="support")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Job {job.id}")
    content = page.content()
    for hidden in ("PaymentDeclined", str(job.args["order"]), "the bank is slow"):
        assert hidden not in content


def test_two_tabs_show_what_one_of_them_does(visits: Visits, live: LiveDashboard) -> None:
    job = waiting(live)
    context = visits.context()
    first, second = context.new_page(), context.new_page()
    for each in (first, second):
        each.goto(f"/jobs/{job.id}")
        expect(each.locator("#pulse")).to_have_text("Live")
    first.get_by_role("button", name="Cancel", exact=True).click()
    expect(second.locator("h1 + .state")).to_have_text("cancelled")
