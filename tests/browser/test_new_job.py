"""The form for a new job, and what may send it."""

import re
from urllib.parse import quote

from playwright.sync_api import expect

from oban import Job
from tests.support.chromium import Visits
from tests.support.live_dashboard import LiveDashboard


def test_a_wrong_value_is_told_at_its_field_and_the_job_is_enqueued_after_correction(
    visits: Visits, live: LiveDashboard
) -> None:
    page = visits.page("/jobs/new")
    page.get_by_label("Worker", exact=True).fill("shop.SendNewsletter")
    page.get_by_label("Args").fill('{"letter": "new"')
    page.get_by_label("Priority").fill("3")
    page.get_by_role("button", name="Enqueue").click()
    expect(page.get_by_label("Args")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#field-args-problem")).to_be_visible()
    visits.expect_problem("status of 4")
    # Nothing that was entered is lost.
    expect(page.get_by_label("Args")).to_have_value('{"letter": "new"')
    expect(page.get_by_label("Worker", exact=True)).to_have_value("shop.SendNewsletter")
    expect(page.get_by_label("Priority")).to_have_value("3")
    page.get_by_label("Args").fill('{"letter": "new"}')
    page.get_by_role("button", name="Enqueue").click()
    expect(page).to_have_url(re.compile(r"/jobs/\d+$"))
    job = live.run(live.shop.job(Job.worker == "shop.SendNewsletter"))
    assert (job.args, job.priority, job.queue) == ({"letter": "new"}, 3, "newsletter")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Job {job.id}")


def test_a_job_is_enqueued_without_scripts(visits: Visits, live: LiveDashboard) -> None:
    page = visits.page("/jobs/new", java_script_enabled=False)
    page.get_by_label("Worker", exact=True).fill("shop.SendNewsletter")
    page.get_by_label("Args").fill('{"letter": "plain"}')
    page.get_by_role("button", name="Enqueue").click()
    expect(page.locator("#args")).to_contain_text("plain")
    assert live.run(live.shop.job(Job.worker == "shop.SendNewsletter")).args == {"letter": "plain"}


def test_the_form_of_another_site_is_refused(visits: Visits, live: LiveDashboard) -> None:
    context = visits.context()
    page = context.new_page()
    page.goto("/jobs/new")
    before = live.run(live.shop.job()).id
    fields = '<input name="worker" value="shop.Foreign"><button>Win</button>'
    form = f'<form method="post" action="{live.origin}/jobs/new">{fields}</form>'
    page.goto(f"data:text/html,{quote(form)}")
    refused = page.expect_console_message(lambda message: "403" in message.text)
    with refused, page.expect_response(f"{live.origin}/jobs/new") as answer:
        page.get_by_role("button", name="Win").click()
    assert answer.value.status == 403
    assert live.run(live.shop.job()).id == before
    visits.expect_problem("403")


def test_times_of_a_new_job_are_shown_in_the_zone_of_the_reader(visits: Visits, live: LiveDashboard) -> None:
    job = live.run(live.shop.job(Job.worker == "shop.ConfirmOrder"))
    for zone, offset in (("Asia/Kathmandu", "GMT+5:45"), ("America/St_Johns", "GMT-3:30")):
        page = visits.page(f"/jobs/{job.id}", timezone_id=zone)
        expect(page.locator(".decisive time")).to_have_attribute("title", re.compile(re.escape(offset)))
